"""Checks of a submitted sweep: every run of it is checked like a run of its own. Nothing is written before all have passed."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.db import SessionFactory
from controlplane.runs import Terms
from controlplane.sweeps import Member
from nanochat.config.recipe import Recipe, RecipeError
from nanochat.planning import early, sweep
from nanochat.planning.plan import Plan, run_plan
from services.api.problems import ProblemError
from services.api.runs import intake
from services.api.runs.intake import Hardware
from services.api.sweeps.schemas import PlannedRunView, SweepPlanView, SweepRequest

SHOWN = 20  # wrong fields, or warnings, that an answer lists


def members(request: SweepRequest, on: Hardware, ledger: SessionFactory, *, project: str) -> list[Member]:
    """The runs of the sweep with their plans. A model of the project that one starts from, named by an id, is its folder there.

    Raises ProblemError, which names every wrong field and the runs that have it.
    """
    assert isinstance(request.recipe, str | dict)
    try:
        children = sweep.children(request, request.recipe, request.overrides)
    except RecipeError as err:
        raise intake.refused(_some(err.problems)) from err
    except OverflowError as err:
        raise intake.refused([("recipe", f"its numbers are too large to compute with ({err}); use smaller ones")]) from err
    found: dict[tuple[str, str], list[str]] = {}
    made: list[Member] = []
    checked: set[str] = set()
    for child in children:
        try:
            recipe = intake.located(child.recipe, ledger, project)
            figures = intake.figures_of(recipe, on, ledger)
            if (data := _data_of(recipe)) not in checked:
                intake.check_data(recipe)
                checked.add(data)
        except ProblemError as err:
            _add(found, err.errors, child.label)
            continue
        made.append(Member(child.label, child.overrides, recipe, figures))
        if request.stop_early is not None:
            _add(found, early.problems(request.stop_early, recipe, figures), child.label)
    if found:
        problems = [(field, sweep.in_runs(text, labels, len(children))) for (field, text), labels in found.items()]
        raise intake.refused(_some(problems))
    return made


def terms_of(request: SweepRequest, on: Hardware) -> Terms:
    """Place in the queue and budget of each run. Raises ProblemError if dollars cannot be counted."""
    terms = Terms(request.priority, request.max_usd_per_run, request.max_hours_per_run, request.usd_per_hour)
    intake.check_price("max_usd_per_run", terms, on)
    return terms


def planned(request: SweepRequest, made: list[Member], on: Hardware) -> SweepPlanView:
    """The plan of the whole sweep."""
    items = [_planned(no, member) for no, member in enumerate(made, start=1)]
    warnings: dict[str, list[str]] = {}
    for member in made:
        for warning in run_plan(member.recipe, member.figures, on.gpu).warnings:
            warnings.setdefault(warning, []).append(member.label)
    told = [sweep.in_runs(text, labels, len(made)) for text, labels in warnings.items()]
    hours, usd = _sum(item.hours for item in items), _sum(item.usd for item in items)
    return SweepPlanView(
        kind=request.kind,
        items=items,
        gpus=on.world_size,
        gpu=made[0].figures.gpu,
        hours=hours,
        gpu_hours=None if hours is None else hours * on.world_size,
        usd=usd,
        warnings=[*on.warnings, *told[:SHOWN]],
    )


def _planned(no: int, member: Member) -> PlannedRunView:
    figures: Plan = member.figures
    first = figures.stages[0]  # pretraining, unless the run starts from a model
    known = [stage.fits for stage in figures.stages if stage.fits is not None]
    return PlannedRunView(
        no=no,
        label=member.label,
        overrides=member.overrides,
        params=figures.params,
        steps=first.steps,
        tokens=first.tokens,
        fits=all(known) if known else None,
        hours=figures.hours,
        usd=figures.usd,
    )


def _data_of(recipe: Recipe) -> str:
    """What decides whether the data are there, and the model to start from: its shape has to be the recipe's."""
    shape = {} if recipe.from_ is None else {"from_": True, "model": True, "tokenizer": True}
    return recipe.model_dump_json(
        include={"data": True, "mid": {"train", "val"}, "sft": {"train", "val"}, "rl": True, "chat_eval": True, **shape}
    )


def _add(found: dict[tuple[str, str], list[str]], problems: Iterable[tuple[str, str]], label: str) -> None:
    for problem in problems:
        found.setdefault(problem, []).append(label)


def _some(problems: list[tuple[str, str]]) -> list[tuple[str, str]]:
    more = [("…", f"{len(problems) - SHOWN} more problems")] if len(problems) > SHOWN else []
    return problems[:SHOWN] + more


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)
