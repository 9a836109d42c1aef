"""Read the stages of a run from their folders: for the report stage, which has their results, and for a run without services."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanochat.config.recipe import Recipe
from nanochat.contract.contract import MANIFEST, SPEC, Artifact, Exit, ExitReport, attempts, read_manifest
from nanochat.planning.graph import stages
from nanochat.report import build, record
from nanochat.report.card import StageCard

RESULTS = "results.json"


def from_results(name: str, results: Artifact) -> StageCard:
    """The card of a stage that has published its results. Raises StageError if they are not what was published."""
    return _done(name, results.dir, read_manifest(results))


def missing(run: Path, names: list[str]) -> list[StageCard]:
    """The cards of stages of a run whose results are not there when the report is made: evaluations that failed."""
    newest = {name: _newest(run / name) for name in names}
    begun = {name: _begun(name, attempt) for name, attempt in newest.items() if attempt is not None}
    return [begun[name] if name in begun and begun[name].state == "failed" else build.card(name, "failed") for name in names]


def from_run(folder: Path, recipe: Mapping[str, Any]) -> list[StageCard]:
    """The cards of the recipe's stages that have begun below the folder of a local run; an earlier recipe may have had others."""
    found = [(d, _newest(folder / d.name)) for d in stages(Recipe.model_validate(recipe)) if d.kind != "report"]
    return [_begun(d.name, attempt) for d, attempt in found if attempt is not None]


def _newest(stage: Path) -> Path | None:
    return next(iter(attempts(stage, SPEC).values()), None)


def _begun(name: str, attempt: Path) -> StageCard:
    if (attempt / MANIFEST).exists():
        results = attempt / "results"
        return _done(name, results, json.loads((results / MANIFEST).read_text(encoding="utf-8")))
    recorded, ended = record.of(attempt), ExitReport.load(attempt)
    stopped = ended is None or ended.exit_code == Exit.STOPPED
    last = recorded.attempts[-1]
    return build.card(
        name,
        "stopped" if stopped else "failed",
        why=ended.message if ended else "",
        started_at=last.started_at,
        finished_at=last.ended_at,
        record=recorded,
    )


def _done(name: str, results: Path, manifest: Mapping[str, Any]) -> StageCard:
    figures = json.loads((results / RESULTS).read_text(encoding="utf-8"))
    times = {key: manifest.get(key) for key in ("started_at", "finished_at")}
    return build.card(name, "done", results=figures, record=record.of(results.parent), **times)
