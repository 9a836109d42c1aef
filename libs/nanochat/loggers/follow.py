"""Follows the events of a run's stages and copies its metrics and evaluations to trackers.

It is a process of its own, beside training: a tracker that fails, hangs or asks for memory never stops a stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nanochat.contract.contract import EVENTS, SPEC, write_json
from nanochat.contract.lines import sift
from nanochat.loggers.sinks import SINKS, Sink, StageRun

POLL_S = 1.0
COPIED = "loggers.json"  # in the folder of a run: until when each tracker has the events of each attempt, in unix seconds


def follow(folder: Path, names: Sequence[str], ended: Callable[[float], bool]) -> int:
    """Copy what is recorded below `folder` until `ended(seconds to wait)` says so, and once more. Returns an exit code.

    A tracker that raises is dropped with a line on stderr; the others go on. The code is 1 when that happened.
    """
    trackers = Trackers(folder, names)
    while not ended(POLL_S):
        trackers.copy()
    trackers.copy()
    trackers.close()
    return 1 if trackers.failed else 0


class Trackers:
    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._folder, self._names = folder, list(names)
        self._stages: defaultdict[str, _Stage] = defaultdict(_Stage)  # by name
        self._copied = _copied(folder)
        self.failed: list[str] = []

    def copy(self) -> None:
        """Copy all events that are new."""
        for path in sorted(self._folder.glob(f"*/attempt-*/{EVENTS}"), key=_age):
            stage = self._stages[path.parents[1].name]
            for event in stage.new_events(path):
                self._copy(stage, path, event)
                stage.until[path] = event["t"]

    def close(self) -> None:
        """End all trackers. Those that did not fail have everything: the next copy of this run gives them what is new."""
        for stage in self._stages.values():
            for name, sink in stage.sinks.items():
                with self._dropping(name):
                    sink.close()
        read = {_key(path): at for stage in self._stages.values() for path, at in stage.until.items()}
        if read and (kept := set(self._names) - set(self.failed)):
            write_json(self._folder / COPIED, self._copied | {name: self._copied.get(name, {}) | read for name in kept})

    def _copy(self, stage: _Stage, path: Path, event: Mapping[str, Any]) -> None:
        if not (found := figures(event)):
            return
        stage.step = event.get("step", stage.step)
        for name in [name for name in self._names if name not in self.failed]:
            if event["t"] <= self._copied.get(name, {}).get(_key(path), 0):
                continue
            with self._dropping(name):
                self._sink(name, stage, path).log(stage.step, found, event["t"])

    def _sink(self, name: str, stage: _Stage, path: Path) -> Sink:
        if name not in stage.sinks:
            spec = json.loads((path.parent / SPEC).read_text(encoding="utf-8"))
            stage.sinks[name] = SINKS[name](StageRun(spec["run"], spec["stage"], self._folder, spec["config"]))
        return stage.sinks[name]

    @contextlib.contextmanager
    def _dropping(self, name: str) -> Iterator[None]:
        """Drop the tracker if the block raises."""
        try:
            yield
        except Exception as err:  # whatever a tracker does, training and the other trackers go on
            self.failed.append(name)
            sys.stderr.write(f"{name} failed and is left out from here on: {type(err).__name__}: {err}\n")
            sys.stderr.flush()


@dataclass(slots=True)
class _Stage:
    step: int = 0
    read: dict[Path, tuple[int, int, int]] = field(default_factory=dict)  # bytes, lines and the last seq so far
    until: dict[Path, float] = field(default_factory=dict)  # time of the last event
    sinks: dict[str, Sink] = field(default_factory=dict)

    def new_events(self, path: Path) -> Iterator[dict[str, Any]]:
        offset, lines, seq = self.read.get(path, (0, 0, -1))
        with path.open("rb") as file:
            file.seek(offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
        sifted = sift(whole, lines, seq)
        self.read[path] = (offset + sum(map(len, whole)), lines + len(whole), sifted.last_seq)
        yield from sifted.events


def figures(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an event by the names that trackers show: those of a metric as they are, of an evaluation with its name."""
    if event["kind"] not in ("metric", "eval"):
        return {}
    prefix = f"{event['name']}/" if event["kind"] == "eval" else ""
    return {
        prefix + key: float(value)
        for key, value in event["values"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def until_closed(stream: int) -> Callable[[float], bool]:
    """Wait for the end of a pipe whose other end the followed process holds: it ends with that process, however it ends."""

    def ended(seconds: float) -> bool:
        ready, _, _ = select.select([stream], [], [], seconds)
        return bool(ready) and not os.read(stream, 1)

    return ended


def at_once(_seconds: float) -> bool:
    """For a run that has ended."""
    return True


def _key(path: Path) -> str:
    """An attempt by its place in the folder of the run: `base_train/attempt-1`."""
    return "/".join(path.parent.parts[-2:])


def _copied(folder: Path) -> dict[str, dict[str, float]]:
    try:
        return TypeAdapter(dict[str, dict[str, float]]).validate_json((folder / COPIED).read_bytes())
    except (OSError, ValidationError):
        return {}


def _age(path: Path) -> tuple[float, int]:
    number = path.parent.name.removeprefix("attempt-")
    return _born(path), int(number) if number.isdigit() else 0


def _born(path: Path) -> float:
    """When the stage started, for order. The specification is written once, before the stage starts."""
    try:
        return (path.parent / SPEC).stat().st_mtime
    except OSError:
        return time.time()
