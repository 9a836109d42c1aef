"""report: write the figures and the records of all stages as `report.md`, `report.html` and `report.json`."""

from __future__ import annotations

from typing import Any

from nanochat.config.recipe import Recipe
from nanochat.contract.contract import StageContext
from nanochat.eval import machine
from nanochat.planning import graph
from nanochat.report import build, gather, write


def run(ctx: StageContext) -> None:
    """Publish `report` and `results`: the summary and the time of the whole run."""
    if ctx.rank != 0:
        return
    recipe = ctx.spec.config.get("full_recipe") or {"name": ctx.spec.config.get("recipe")}
    cards = [gather.from_results(name, results) for name, results in ctx.spec.inputs.items()]
    made = build.report(
        ctx.spec.run, recipe, [*cards, *gather.missing(ctx.out.parents[1], _failed(ctx, recipe))], machine.describe()
    )
    write.all_forms(made, ctx.out / "report")
    ctx.publish("report", ctx.out / "report")
    ctx.events.emit("progress", done=len(cards), total=len(cards), unit="section")
    ctx.publish_results({"summary": {row.name: row.values for row in made.summary}, "total_seconds": made.total_seconds})


def _failed(ctx: StageContext, recipe: dict[str, Any]) -> list[str]:
    """Stages of this run whose results are not there: evaluations that failed."""
    if "full_recipe" not in ctx.spec.config:
        return []
    parts = graph.stages(Recipe.model_validate(recipe))
    return [s.name for s in parts if s.kind != "report" and s.name not in ctx.spec.inputs]
