"""Runs to report on: one whose figures are those of a public d20 run, and folders with the events of stages."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nanochat.config.recipe import Recipe
from nanochat.contract.contract import Artifact, Exit, ExitReport, seal, write_json, write_manifest
from nanochat.contract.events import EventLog
from nanochat.data.core_bundle import ROWS
from nanochat.report import build
from nanochat.report.card import Report, StageCard

SIX = {"arc_easy": 0.448, "arc_challenge": 0.331, "mmlu": 0.332, "gsm8k": 0.05, "humaneval": 0.092, "spellingbee": 1.0}
MACHINE: dict[str, str | int] = {
    "system": "Linux",
    "cores": 8,
    "gpus": "8 x NVIDIA H100",
    "python": "3.11.7",
    "torch": "2.11.0",
}
TOOL = "There are <|python_start|>'banana'.count('a')<|python_end|><|output_start|>3<|output_end|> of them.\n\n#### 3"
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">| `x` </style></svg>"


def chat_results(source: str, chatcore: float | None, tasks: Mapping[str, float] | None = None) -> dict[str, Any]:
    figures = {t: {"accuracy": a, "n": 100, "rows": 100, "skipped": 0, "baseline": 0.25} for t, a in (tasks or SIX).items()}
    samples = [
        {"task": "spellingbee", "prompt": "How many | are\nthere?", "completion": "`` <b>#### 3``` |", "right": True},
        {"task": "spellingbee", "prompt": "How many letters a are in banana?", "completion": TOOL, "right": True},
        {"task": "gsm8k", "prompt": EVIL, "completion": EVIL, "right": False},
    ]
    return {"source": source, "tasks": figures, "chatcore": chatcore, "samples": samples}


def results(**replaced: Any) -> dict[str, dict[str, Any]]:
    """The results of a d20 run by stage. A stage that is replaced by None has none."""
    core_tasks = {label: {"accuracy": 0.5, "centered": 0.2, "n": rows, "rows": rows} for label, rows in ROWS.items()}
    core = {"core": 0.2, "tasks": core_tasks, "missing": [], "partial": [], "estimate": False}
    training = {
        "val_bpb": 0.812,
        "steps": 21_400,
        "tokens": 11_219_763_200,
        "params": 560_988_160,
        "tok_per_s": 1_083_000.0,
        "mfu": 48.0,
        "device": "NVIDIA H100 80GB HBM3",
        "world_size": 8,
    }
    found = {
        "data": {"train_shards": 240},
        "base_train": training,
        "base_eval": {"bpb": {"train": 0.8148, "val": 0.8121}, "core": core, "samples": [{"prompt": "Gold is", "text": " Au"}]},
        "mid_train": {"val_bpb": 0.3953},
        "chat_eval_mid": chat_results("mid", 0.2703),
        "sft": {"val_loss": 1.011},
        "chat_eval_sft": chat_results("sft", 0.2793),
    }
    return {name: figures for name, figures in (found | replaced).items() if figures is not None}


def a_run(**replaced: Any) -> Report:
    """The report of a d20 run, each of whose stages took ten minutes."""
    return report_of([card(name, i, figures) for i, (name, figures) in enumerate(results(**replaced).items())])


def card(name: str, place: int, figures: Mapping[str, Any]) -> StageCard:
    return build.card(name, "done", results=figures, started_at=1000.0 + 600 * place, finished_at=1600.0 + 600 * place)


def report_of(cards: list[StageCard], **fields: Any) -> Report:
    return build.report("r_1", Recipe().model_dump(mode="json"), cards, MACHINE, **fields)


# -- folders of stages --


def attempt(
    stage: Path,
    no: int,
    points: Iterable[tuple[int, Mapping[str, float]]],
    *,
    resumed_from: str | None = None,
    ended: str | None = None,
    figures: Mapping[str, Any] | None = None,
) -> Path:
    """Write an attempt as a stage would: its spec, its events, and its results or why it ended."""
    folder = stage / f"attempt-{no}"
    folder.mkdir(parents=True)
    resume = {"path": str(stage / resumed_from), "sha256": "0" * 64} if resumed_from else None
    write_json(folder / "stage.json", {"attempt": no, "resume_from": resume})
    log = EventLog(folder / "events.jsonl")
    for step, values in points:
        log.emit("metric", step=step, values=dict(values))
    if figures is not None:
        (folder / "results").mkdir()
        (folder / "results" / "results.json").write_text(json.dumps(figures))
        seal(folder / "results", name="results", stage=stage.name, started_at=1000.0, finished_at=1060.0)
        write_manifest(folder, [])
    log.close()
    if ended is not None:
        ExitReport(exit_code=Exit.FAILED, code="crash", message=ended).save(folder)
    return folder


def model_artifact(folder: Path, attempt_folder: Path) -> Artifact:
    """Publish a model as the attempt's artifact."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    made = seal(folder, name="model", stage="base_train")
    log = EventLog(attempt_folder / "events.jsonl")
    log.emit("artifact", name="model", path=made.path, sha256=made.sha256)
    log.close()
    return made


def falling(steps: int, start: int = 1) -> list[tuple[int, dict[str, float]]]:
    """The metrics of a training that goes well."""
    return [
        (
            step,
            {
                "loss": 2.4 + 8.6 * math.exp(-step / 60),
                "tok_per_s": 1.08e6 + 9e3 * math.sin(step),
                "mfu": 48 + 0.4 * math.sin(step),
                "lrm": min(1.0, (steps - step + 1) / (0.2 * steps)),
            },
        )
        for step in range(start, steps + 1)
    ]
