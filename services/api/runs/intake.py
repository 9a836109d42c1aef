"""A submitted recipe, refused here or fit to run: nothing is written before this has said yes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.schemas import WorkerView
from nanochat.config.recipe import Recipe, RecipeError, resolve
from nanochat.planning import plan, preflight
from services.api.problems import ProblemError
from services.api.runs.schemas import PlanRequest, RecipeRequest


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the training stages would run on."""

    world_size: int
    gpu: str | None
    gpu_memory_gib: float | None = None
    peak_tflops: float | None = None
    usd_per_hour: float | None = None
    warnings: tuple[str, ...] = ()


def hardware(workers: Sequence[WorkerView]) -> Hardware:
    """The best worker of the gpu queue that is alive; one process of unknown speed while there is none."""
    alive = [w for w in workers if w.queue == "gpu" and w.status != "lost"]
    if not alive:
        warning = "no gpu worker is alive: planned for one process of unknown speed; the run waits for a worker"
        return Hardware(1, None, warnings=(warning,))
    best = max(alive, key=lambda w: w.gpus)
    return Hardware(max(1, best.gpus), best.gpu_name or None)


def asked_for(request: PlanRequest, here: Hardware) -> Hardware:
    """The hardware that a plan is wanted for: what the request names, else what is `here`."""
    named = request.gpus is not None or request.gpu is not None
    return Hardware(
        request.gpus or here.world_size,
        request.gpu or here.gpu,
        request.gpu_memory_gib,
        request.peak_tflops,
        request.usd_per_hour,
        () if named else here.warnings,
    )


def recipe_of(request: RecipeRequest, on: Hardware) -> tuple[Recipe, plan.Plan]:
    """The recipe that the request means and what it comes to. Raises ProblemError naming every field at fault."""
    assert isinstance(request.recipe, str | dict)
    try:
        recipe = resolve(request.recipe, dict(request.overrides))
        figures = plan.plan(
            recipe, on.world_size, on.gpu, on.gpu_memory_gib, peak_tflops=on.peak_tflops, usd_per_hour=on.usd_per_hour
        )
    except RecipeError as err:
        raise _refused(err.problems) from err
    except OverflowError as err:
        raise _refused([("recipe", f"its numbers are too large to compute with ({err}); use smaller ones")]) from err
    try:
        problems = preflight.check(recipe)
    except OSError as err:  # a path that this machine may not read, or that is too long for it
        problems = [("data", f"{err.filename} cannot be looked at: {err.strerror}; give another path")]
    if problems:
        raise _refused(problems)
    return recipe, figures


def fingerprint(request: RecipeRequest) -> str:
    """Digest of what was asked, the same for the same JSON value however it was written."""
    text = json.dumps(request.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _refused(problems: list[tuple[str, str]]) -> ProblemError:
    detail = "; ".join(f"{field}: {message}" for field, message in problems)
    return ProblemError("invalid-recipe", detail, problems)
