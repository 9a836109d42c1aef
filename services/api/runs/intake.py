"""Checks of a submitted recipe. Nothing is written before it has passed them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from pydantic import BaseModel

from controlplane import measurements, origins, plans
from controlplane.budgets import price_of
from controlplane.db import SessionFactory
from controlplane.errors import NotFound
from controlplane.runs import Terms
from controlplane.schemas import WorkerView
from nanochat.config.recipe import Recipe, RecipeError, resolve
from nanochat.planning import gpus, plan, preflight
from nanochat.planning.checked import checked
from nanochat.planning.measured import Measured
from services.api.problems import ProblemError
from services.api.runs.schemas import NewTerms, PlanRequest, RecipeRequest, SubmitRequest


@dataclass(frozen=True, slots=True)
class Hardware:
    """The hardware that the training stages would run on. None means unknown, or as in the table of GPUs."""

    world_size: int
    gpu: str | None
    gpu_memory_gib: float | None = None
    peak_tflops: float | None = None
    usd_per_hour: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exists(self) -> bool:
        """Whether stages can have run on it: it is a real GPU as it is sold, or the CPU of a worker."""
        altered = self.gpu_memory_gib is not None or self.peak_tflops is not None
        return not altered and (self.gpu is not None or (self.world_size == 1 and not self.warnings))


def hardware(workers: Sequence[WorkerView]) -> Hardware:
    """Of the gpu workers that are not lost, the one with the most GPUs; one process of unknown speed if there is none."""
    alive = [w for w in workers if w.queue == "gpu" and w.status != "lost"]
    if not alive:
        warning = "no gpu worker is alive; planned for one process of unknown speed, and the run would wait for a worker"
        return Hardware(1, None, warnings=(warning,))
    best = max(alive, key=lambda w: w.gpus)
    return Hardware(max(1, best.gpus), best.gpu_name or None)


def requested(request: PlanRequest, available: Hardware) -> Hardware:
    """The hardware to plan for: what the request names, and what is available where it names nothing."""
    named = request.gpus is not None or request.gpu is not None
    return Hardware(
        request.gpus or available.world_size,
        request.gpu or available.gpu,
        request.gpu_memory_gib,
        request.peak_tflops,
        request.usd_per_hour,
        () if named else available.warnings,
    )


def recipe_of(
    request: RecipeRequest, on: Hardware, ledger: SessionFactory, *, project: str, follows: str | None = None
) -> tuple[Recipe, plan.Plan]:
    """The requested recipe and its plan, with the figures of finished runs.

    Where it starts from a checkpoint or a run of the project, named by its id, it has their folders in place of the id. `follows`
    is the hash of a plan: its figures are used again. Raises ProblemError, which names every wrong field.
    """
    assert isinstance(request.recipe, str | dict)
    with _refusing():
        overrides = {**request.overrides, **_folders(request, ledger, project)}
        return checked(request.recipe, overrides, lambda recipe: _planned(recipe, on, ledger, follows))


def figures_of(recipe: Recipe, on: Hardware, ledger: SessionFactory) -> plan.Plan:
    """The plan of a recipe, with the figures of finished runs. Raises ProblemError, which names every wrong field."""
    with _refusing():
        return _planned(recipe, on, ledger, None)


def located(recipe: Recipe, ledger: SessionFactory, project: str) -> Recipe:
    """The recipe, with folders where it names a checkpoint or a run of the project. Raises ProblemError."""
    with _refusing(), ledger() as session:
        return origins.located(session, recipe, project)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except RecipeError as err:
        raise refused(err.problems) from err
    except NotFound as err:
        raise refused([("from.model", str(err))]) from err
    except OverflowError as err:
        raise refused([_too_large(err)]) from err


def _folders(request: RecipeRequest, ledger: SessionFactory, project: str) -> dict[str, str]:
    """Those of the checkpoint or run from which the requested recipe starts, as overrides."""
    assert isinstance(request.recipe, str | dict)
    try:
        start = resolve(request.recipe, dict(request.overrides)).from_
    except RecipeError:  # `checked` names all that is wrong with it
        return {}
    if start is None:
        return {}
    with ledger() as session:
        return origins.places(session, start, project)


def _planned(recipe: Recipe, on: Hardware, ledger: SessionFactory, follows: str | None) -> plan.Plan:
    return plan.plan(
        recipe,
        on.world_size,
        gpus.CPU if on.gpu is None and on.exists else on.gpu,
        on.gpu_memory_gib,
        peak_tflops=on.peak_tflops,
        usd_per_hour=on.usd_per_hour,
        measured=_measured(recipe, on, ledger, follows),
    )


def check_data(recipe: Recipe) -> None:
    """Check that the data which the recipe names are there. Raises ProblemError."""
    try:
        problems = preflight.check(recipe)
    except OSError as err:  # no permission to read a path, or the path is too long
        problems = [("data", f"{err.filename} cannot be read: {err.strerror}; give another path")]
    if problems:
        raise refused(problems)


def _measured(recipe: Recipe, on: Hardware, ledger: SessionFactory, follows: str | None) -> Sequence[Measured]:
    """The figures of the plan that the request names (decision 11), else those of finished runs on this hardware."""
    with ledger() as session:
        if follows is not None and (kept := plans.figures_of(session, follows)) is not None:
            return kept
        return measurements.of(session, recipe, on.world_size, on.gpu) if on.exists else ()


def terms_of(request: SubmitRequest | NewTerms, on: Hardware, old: Terms | None = None) -> Terms:
    """The run's place in the queue and its budget: `old`, changed by what is given. Raises ProblemError if dollars cannot be counted."""
    asked = {field.name: getattr(request, field.name) for field in fields(Terms)}
    terms = replace(old or Terms(), **{name: value for name, value in asked.items() if value is not None})
    if request.max_usd is not None:
        check_price("max_usd", terms, on)
    return terms


def check_price(field: str, terms: Terms, on: Hardware) -> None:
    """Raises ProblemError about the field if there is a budget of dollars that cannot be counted."""
    if terms.max_usd is not None and price_of(terms.usd_per_hour, on.gpu) is None:
        message = (
            f"the price of {on.gpu or 'the gpu workers'} is not known, so dollars cannot be counted; give usd_per_hour as well"
        )
        raise ProblemError("invalid-request", f"{field}: {message}", [(field, message)])


def fingerprint(request: BaseModel, *of: str) -> str:
    """Digest of the request's JSON value and of what it is about; order of keys and white space do not matter."""
    text = json.dumps([request.model_dump(mode="json"), *of], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _too_large(err: OverflowError) -> tuple[str, str]:
    return "recipe", f"its numbers are too large to compute with ({err}); use smaller numbers"


def refused(problems: Sequence[tuple[str, str]]) -> ProblemError:
    """The refusal of a recipe, with its wrong fields and what is wrong with them."""
    detail = "; ".join(f"{field}: {message}" for field, message in problems)
    return ProblemError("invalid-recipe", detail, problems)
