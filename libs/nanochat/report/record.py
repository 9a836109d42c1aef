"""What a stage recorded while it ran: curves, samples, warnings, artifacts and attempts, read from the events of all its attempts."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from nanochat.contract.contract import EVENTS, MANIFEST, SPEC, Exit, ExitReport
from nanochat.contract.events import read
from nanochat.report import curves
from nanochat.report.curves import Curve

KEPT_SAMPLES = 4  # steps of which the samples are kept: the first, the last, and others between them
KEPT_WARNINGS = 20  # different ones
TEXT = 1200  # characters of a text that are kept
_ATTEMPT = re.compile(r"attempt-(\d+)")
_STEP = re.compile(r"step_(\d+)")


class AttemptRecord(BaseModel):
    """One try of a stage."""

    no: int = Field(description="Number of the attempt, from 1.")
    started_at: float | None = Field(default=None, description="When its first event was written, in Unix seconds.")
    ended_at: float | None = Field(default=None, description="When its last event was written, in Unix seconds.")
    resumed_from_step: int | None = Field(default=None, description="Step of the checkpoint that it started from; null: none.")
    ended: str = Field(default="", description="Why it ended early; empty: it did not.")


class Warned(BaseModel):
    """A warning of a stage."""

    code: str = Field(description="What it is about, for programs.")
    message: str = Field(description="The warning, for people.")
    count: int = Field(default=1, description="How often it was given.")


class Sample(BaseModel):
    """A prompt that the model continued while it was trained."""

    step: int = Field(description="Step after which the model was asked.")
    prompt: str = Field(description="The prompt.")
    text: str = Field(description="The continuation.")
    reward: float | None = Field(default=None, description="The reward that it earned; null outside of reinforcement learning.")


class Made(BaseModel):
    """An artifact that a stage published."""

    name: str = Field(description="Name of the artifact.")
    sha256: str = Field(description="SHA-256 digest of its manifest, which lists the digest of every file.")
    bytes: int | None = Field(default=None, description="Size of its files in bytes; null: its manifest could not be read.")
    files: int | None = Field(default=None, description="Number of its files; null: its manifest could not be read.")
    weights_sha256: str | None = Field(default=None, description="SHA-256 digest of model.safetensors, if it has that file.")


class StageRecord(BaseModel):
    """What a stage recorded, bounded in size whatever the stage wrote."""

    curves: list[Curve] = Field(default=[], description="Its metrics by step.")
    samples: list[Sample] = Field(default=[], description="Samples of a few steps.")
    warnings: list[Warned] = Field(default=[], description="Its warnings, each once.")
    artifacts: list[Made] = Field(default=[], description="What it published.")
    attempts: list[AttemptRecord] = Field(default=[], description="Its attempts, in order.")


def of(attempt: Path) -> StageRecord:
    """The record of a stage whose newest attempt has this folder. Points that a later attempt has superseded are left out, and so
    are attempts at other settings or of other inputs and earlier complete ones: a local run may have been repeated with other recipes.

    The folder of an attempt is `attempt-<n>`, beside those of the others; of a folder with another name, nothing else is read.
    """
    folders = _attempts(attempt)
    specs = {no: _spec(folder) for no, folder in folders.items()}
    line = _line(folders, specs)
    last = max(folders, default=0)
    folders = {
        no: folder
        for no, folder in folders.items()
        if no in line or (_task(specs[no]) == _task(specs[last]) and not (folder / MANIFEST).exists())
    }
    events = {no: list(read(folder / EVENTS)) for no, folder in folders.items()}
    return StageRecord(
        curves=[curves.of(key, points) for key, points in _points(events, line).items()],
        samples=samples([e for no in sorted(line) for e in events[no] if e["kind"] == "sample" and e["step"] <= line[no]]),
        warnings=warnings([e for found in events.values() for e in found if e["kind"] == "warning"]),
        artifacts=[made(e["name"], e["path"], e["sha256"]) for e in events.get(last, []) if e["kind"] == "artifact"],
        attempts=[_attempt(no, folder, events[no], specs[no], newest=no == last) for no, folder in folders.items()],
    )


def _attempts(newest: Path) -> dict[int, Path]:
    found = _ATTEMPT.fullmatch(newest.name)
    if not found:
        return {1: newest}
    folders = {int(m[1]): f for f in newest.parent.iterdir() if (m := _ATTEMPT.fullmatch(f.name)) and f.is_dir()}
    return {no: folders[no] for no in sorted(folders) if no <= int(found[1])}


def _spec(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / SPEC).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _task(spec: dict[str, Any]) -> tuple[Any, ...]:
    """What an attempt was to do: its settings, and the digests of what it reads."""
    inputs = spec.get("inputs") or {}
    return spec.get("config"), spec.get("seed"), {name: artifact.get("sha256") for name, artifact in inputs.items()}


def _origin(spec: dict[str, Any]) -> Path | None:
    """The folder of the checkpoint that an attempt resumed from."""
    resumed = spec.get("resume_from")
    return Path(resumed["path"]) if isinstance(resumed, dict) and "path" in resumed else None


def _step_of(checkpoint: Path | None) -> int | None:
    found = _STEP.fullmatch(checkpoint.name) if checkpoint else None
    return int(found[1]) if found else None


def _line(folders: dict[int, Path], specs: dict[int, dict[str, Any]]) -> dict[int, float]:
    """The attempts whose points count, and up to which step: the newest, the one whose checkpoint it resumed, and so on."""
    line: dict[int, float] = {}
    no, limit = max(folders, default=0), float("inf")
    while no in folders and no not in line:
        line[no] = limit
        checkpoint = _origin(specs[no])
        step = _step_of(checkpoint)
        if checkpoint is None or step is None:
            break
        limit = min(limit, step)
        saver = checkpoint.parent.parent
        found = _ATTEMPT.fullmatch(saver.name)
        no = int(found[1]) if found and saver.parent.resolve() == folders[no].parent.resolve() else 0
    return line


def _points(events: dict[int, list[dict[str, Any]]], line: dict[int, float]) -> dict[str, dict[int, float]]:
    """The points of each key, the attempts in order: a step that is reported again replaces its value."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for no in sorted(line):
        for event in events[no]:
            if event["kind"] == "metric" and event["step"] <= line[no]:
                for key, value in event["values"].items():
                    number = curves.number(value)
                    if number is not None:
                        found[key][event["step"]] = number
    return found


def samples(events: Sequence[Mapping[str, Any]]) -> list[Sample]:
    """The samples of a few steps."""
    steps = sorted({e["step"] for e in events})
    if len(steps) > KEPT_SAMPLES:
        steps = [steps[round(i * (len(steps) - 1) / (KEPT_SAMPLES - 1))] for i in range(KEPT_SAMPLES)]
    found: dict[tuple[int, str, str], Sample] = {}
    for event in events:
        if event["step"] in steps:
            step, prompt, text = event["step"], str(event["prompt"])[:TEXT], str(event["text"])[:TEXT]
            reward = curves.number(event.get("reward"))
            found[step, prompt, text] = Sample(step=step, prompt=prompt, text=text, reward=_finite(reward))
    return list(found.values())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def warnings(events: Sequence[Mapping[str, Any]]) -> list[Warned]:
    """The warnings, each once."""
    found: dict[tuple[str, str], Warned] = {}
    for event in events:
        key = (str(event["code"]), str(event["message"])[:TEXT])
        if key in found:
            found[key].count += 1
        elif len(found) < KEPT_WARNINGS:
            found[key] = Warned(code=key[0], message=key[1])
    return list(found.values())


def made(name: str, path: str, sha256: str) -> Made:
    """An artifact, with what its manifest says if that can be read here."""
    found = Made(name=name, sha256=sha256)
    try:
        files = json.loads((Path(path) / MANIFEST).read_text(encoding="utf-8"))["files"]
        found.files, found.bytes = len(files), sum(entry["bytes"] for entry in files)
        found.weights_sha256 = next((entry["sha256"] for entry in files if entry["path"] == "model.safetensors"), None)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return found


def _attempt(no: int, folder: Path, events: list[dict[str, Any]], spec: dict[str, Any], *, newest: bool) -> AttemptRecord:
    times = [event["t"] for event in events]
    return AttemptRecord(
        no=no,
        started_at=min(times, default=None),
        ended_at=max(times, default=None),
        resumed_from_step=_step_of(_origin(spec)),
        ended=_ended(folder) or ("" if newest or (folder / MANIFEST).exists() else "its processes were killed"),
    )


def _ended(folder: Path) -> str:
    try:
        report = ExitReport.load(folder)
    except (OSError, ValueError):
        return "its exit report cannot be read"
    if report is None or report.exit_code == Exit.OK:
        return ""
    return report.message
