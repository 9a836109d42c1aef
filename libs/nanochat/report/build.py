"""Build the report card from the stages of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from nanochat.config.recipe import Recipe
from nanochat.planning import gpus, graph
from nanochat.planning.graph import STAGES, StageDef
from nanochat.report import cells, code, notes, summary
from nanochat.report.card import Cost, Lineage, Report, Setting, StageCard, State
from nanochat.report.published import PUBLISHED
from nanochat.report.record import Made
from nanochat.report.summary import table

SETTING = 300  # characters of a setting that are shown


def report(
    run: str,
    recipe: Mapping[str, Any],
    stages: Sequence[StageCard],
    machine: Mapping[str, str | int],
    *,
    name: str = "",
    status: str = "",
) -> Report:
    """The report of a run. `recipe` is the whole recipe as JSON, or just its name if no more is known.

    Stages that are not among `stages` were left out if the recipe does not turn them on, and not reached otherwise. `machine` is
    shown only if no evaluation recorded its own machine. `status` says how the run ended, or how far it is.
    """
    recipe = normal(recipe)
    by_name = {stage.name: stage for stage in stages}
    shown = [d for d in STAGES if d.kind != "report" and (d.name in by_name or d.enabled_by != ("from_",))]
    every = [by_name.get(d.name) or absent(d, recipe) for d in shown]
    results = {stage.name: stage.results for stage in every}
    total = total_seconds(every)
    recorded = [table(figures.get("machine")) for figures in results.values() if table(figures.get("machine"))]
    complete = all(stage.state in ("done", "left out") for stage in every)
    return Report(
        run=run,
        name=name,
        made_at=time.time(),
        state="complete" if complete else "partial",
        status=status,
        recipe=dict(recipe),
        machine=dict(recorded[0] if recorded else machine),
        code=code.measured(),
        stages=every,
        summary=summary.rows(results),
        total_seconds=total,
        cost=cost(results, total),
        notes=notes.of(every),
        settings=_settings(recipe),
        lineage=_lineage(every),
        published=list(PUBLISHED),
    )


def card(name: str, state: State, **fields: Any) -> StageCard:
    """The card of a stage of the graph. Its times give its seconds."""
    title = next(d.title for d in STAGES if d.name == name)
    found = StageCard(name=name, title=title, state=state, **{**fields, "results": finite(fields.get("results") or {})})
    if found.started_at and found.finished_at:
        found.seconds = found.finished_at - found.started_at
    return found


def absent(stage: StageDef, recipe: Mapping[str, Any]) -> StageCard:
    """The card of a stage that nothing is known of."""
    return card(stage.name, "not reached" if stage.name in expected(recipe) else "left out")


def expected(recipe: Mapping[str, Any]) -> set[str]:
    """The names of the stages that a run of this recipe has; none if the recipe is only a name."""
    if "base" not in recipe:
        return set()
    try:
        return {stage.name for stage in graph.stages(Recipe.model_validate(dict(recipe)))}
    except ValidationError:  # of another version of the program
        return {stage.name for stage in STAGES}


def total_seconds(stages: Sequence[StageCard]) -> float | None:
    """Seconds from the start of the first stage to the end of the last one; None when no stage recorded its times."""
    starts = [s.started_at for s in stages if s.started_at]
    ends = [s.finished_at for s in stages if s.finished_at]
    return max(ends) - min(starts) if starts and ends else None


def normal(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe in the order of its fields: a database keeps JSON in an order of its own."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json") if "base" in recipe else recipe
    except ValidationError:  # a recipe of another version
        usual = {key: place for place, key in enumerate(Recipe.model_fields)}
        return {key: recipe[key] for key in sorted(recipe, key=lambda k: (usual.get(k, len(usual)), k))}


def finite(value: Any) -> Any:
    """`value` with floats that are not finite as text, because JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def cost(results: Mapping[str, Mapping[str, Any]], total: float | None, usd_per_hour: float | None = None) -> Cost | None:
    """The price of the run; None if that of its hardware is unknown. `usd_per_hour` is of one GPU, in place of the table's."""
    trained = next((results[d.name] for d in STAGES if d.trains and results.get(d.name, {}).get("device")), {})
    device = str(trained.get("device", ""))
    found = gpus.find(device)
    if usd_per_hour is None and found is not None:
        usd_per_hour = found.usd_per_hour
    if not device or usd_per_hour is None or not total:
        return None
    count = int(trained.get("world_size") or 1)
    price = usd_per_hour * count
    return Cost(gpu=found.name if found else device, gpus=count, usd_per_hour=price, usd=price * total / 3600)


# -- settings --


def _settings(recipe: Mapping[str, Any]) -> list[Setting]:
    """The settings in which this run differs from the d20 speedrun, whose values are the defaults."""
    usual = dict(_flat(Recipe().model_dump(mode="json")))
    return [
        Setting(name=key, value=_shown(value), usual=_shown(usual.get(key)))
        for key, value in _flat(recipe)
        if value != usual.get(key) and key not in ("name", "description")
    ]


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    """A setting on one line. A mixture is shown by its tasks and sizes."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        text = ", ".join(" ".join(str(v) for v in use.values() if v is not None and v not in (1, "train")) for use in value)
    elif isinstance(value, list):
        text = ", ".join(map(str, value))
    else:
        text = cells.NONE if value is None else str(value)
    return cells.clipped(text, SETTING)


# -- lineage --


def _lineage(stages: Sequence[StageCard]) -> list[Lineage]:
    """The digests of the artifacts in the order of the run, and of the weights of each model. Results lead to nothing else."""
    rows = []
    for stage in stages:
        for made in stage.record.artifacts:
            if made.name == "results":
                continue
            rows.append(_entry(stage, made))
            if made.weights_sha256:
                rows.append(Lineage(what=f"weights: {stage.name}", stage=stage.name, sha256=made.weights_sha256))
    return rows


WHAT = {
    "tok_shards": "text for the tokenizer (index of shards)",
    "shards": "pretraining text (index of shards)",
    "tasks": "task data (index of files)",
    "core": "CORE bundle (its folder)",
    "tokenizer": "tokenizer",
}


def _entry(stage: StageCard, made: Made) -> Lineage:
    what = WHAT.get(made.name) or f"{made.name}: {stage.name}"
    return Lineage(what=what, stage=stage.name, sha256=made.sha256, bytes=made.bytes, files=made.files)
