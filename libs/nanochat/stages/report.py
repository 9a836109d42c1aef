"""report: write the figures of all stages on one page of Markdown."""

from __future__ import annotations

import json
from typing import Any

from nanochat.contract.contract import StageContext, read_manifest
from nanochat.eval import machine, report
from nanochat.planning.graph import STAGES


def run(ctx: StageContext) -> None:
    """Publish `report` and `results`: the summary and the time of the whole run."""
    if ctx.rank != 0:
        return
    recipe = ctx.spec.config.get("full_recipe") or {"name": ctx.spec.config.get("recipe")}
    stages = [_stage(ctx, name) for name in ctx.spec.inputs]
    directory = ctx.out / "report"
    directory.mkdir(parents=True, exist_ok=True)
    text = report.render(ctx.spec.run, recipe, stages, machine.describe(), failed=_failed(ctx, recipe))
    (directory / "report.md").write_text(text, encoding="utf-8")
    ctx.publish("report", directory)
    ctx.events.emit("progress", done=len(stages), total=len(stages), unit="section")
    ctx.publish_results({"summary": report.summary({s.name: s for s in stages}), "total_seconds": report.total_seconds(stages)})


def _failed(ctx: StageContext, recipe: dict[str, Any]) -> list[str]:
    """Stages of this run whose results are not there: evaluations that failed."""
    parts = [s for s in STAGES if s.kind != "report" and (s.enabled_by is None or recipe.get(s.enabled_by, {}).get("enabled"))]
    return [s.name for s in parts if s.name not in ctx.spec.inputs] if "full_recipe" in ctx.spec.config else []


def _stage(ctx: StageContext, name: str) -> report.StageResults:
    results = json.loads((ctx.input(name) / "results.json").read_text(encoding="utf-8"))
    manifest = read_manifest(ctx.spec.inputs[name])
    return report.StageResults(name, results, manifest.get("started_at"), manifest.get("finished_at"))
