"""Run one stage without the platform: with `python -m nanochat <kind> --spec stage.json`, or the same in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat import __main__ as stage_main
from nanochat.config.recipe import Recipe
from nanochat.contract import events
from nanochat.contract.contract import StageSpec
from nanochat.planning.graph import STAGES, config


@dataclass
class Ran:
    """The folder of a stage and its exit code."""

    out: Path
    code: int

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in events.read(self.out / "events.jsonl") if e["kind"] == kind]

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        return {e["name"]: {"path": e["path"], "sha256": e["sha256"]} for e in self.events("artifact")}

    @property
    def results(self) -> dict[str, Any]:
        table: dict[str, Any] = json.loads((self.out / "results/results.json").read_text(encoding="utf-8"))
        return table


def write_spec(folder: Path, kind: str, recipe: Recipe, inputs: dict[str, dict[str, str]] | None = None) -> Path:
    stage = next(s for s in STAGES if s.name == kind)
    out = folder / kind
    out.mkdir(parents=True, exist_ok=True)
    spec = {
        "run": "r_test",
        "stage": kind,
        "kind": stage.kind,
        "config": config(recipe, stage),
        "inputs": inputs or {},
        "output_dir": str(out),
        "cache_dir": str(folder / "cache"),
    }
    path = out / "stage.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def start(folder: Path, kind: str, recipe: Recipe, inputs: dict[str, dict[str, str]] | None = None) -> subprocess.Popen[bytes]:
    """Start the stage in a separate process, by its command line."""
    spec = write_spec(folder, kind, recipe, inputs)
    return subprocess.Popen([sys.executable, "-m", "nanochat", kind, "--spec", str(spec)])


def run(folder: Path, kind: str, recipe: Recipe, inputs: dict[str, dict[str, str]] | None = None) -> Ran:
    """Run the stage in this process to its end."""
    spec = StageSpec.model_validate_json(write_spec(folder, kind, recipe, inputs).read_bytes())
    return Ran(folder / kind, stage_main.run(spec))
