"""The report card of a local run, beside its stages: written however the run ended, so that a failed run has one too."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from nanochat.config.recipe import Recipe
from nanochat.contract.contract import Exit
from nanochat.report import build, gather, write


def write_card(out: Path, recipe: Recipe, code: int) -> str:
    """Write `report.md`, `report.html` and `report.json` into the folder of the run. Returns what to tell the user."""
    full = recipe.model_dump(mode="json")
    stages = gather.from_run(out, full)
    if not stages:
        return "no stage has begun, so there is no report"
    try:
        write.all_forms(build.report(out.name, full, stages, _machine(), status=_status(code)), out)
    except OSError as err:
        return f"the report could not be written: {err}"
    return f"the report is in {out / write.HTML}, {write.MARKDOWN} and {write.JSON} beside it"


def _machine() -> dict[str, str | int]:
    """What is known without torch, which takes seconds to import. An evaluation that ran has recorded more."""
    return {"system": platform.platform(terse=True), "cores": os.cpu_count() or 1, "python": platform.python_version()}


def _status(code: int) -> str:
    if code == Exit.OK:
        return ""
    if code == Exit.STOPPED:
        return "The run was stopped. The same command goes on from here."
    return "A stage failed. When its cause is mended, the same command goes on from here."
