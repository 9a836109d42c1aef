"""The events of a stage, its only output while it runs: JSON lines appended to `events.jsonl`. Imports no torch.

Each line is `{"v": 1, "seq": n, "t": unix seconds, "kind": ..., ...}` with the fields of its kind below. One `write` call
writes the whole line, so a reader that stops at the last newline never sees half an event.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VERSION = 1

# kind -> required fields; the comment names optional ones. Readers ignore fields that they do not know.
KINDS: dict[str, tuple[str, ...]] = {
    "progress": ("done", "total", "unit"),  # + eta_s, note
    "metric": ("step", "values"),  # values: {key: float}
    "sample": ("step", "prompt", "text"),
    "eval": ("name", "values"),  # + step, detail
    # + val_bpb, stall_ms, write_s. The last step has two: not final before its evaluations, final after them.
    "checkpoint": ("step", "path", "sha256", "bytes", "final"),
    "checkpoint_deleted": ("step", "path"),  # emitted before the deletion, so that no reader is offered a deleted one
    "artifact": ("name", "path", "sha256"),
    "log": ("level", "message"),
    "warning": ("code", "message"),
    "error": ("code", "message"),  # + hint
}


class EventLog:
    """Appends events to a file. `seq` continues that of an existing file. Without a path (ranks other than 0) it writes nothing."""

    def __init__(self, path: Path | None):
        self._fd = -1
        self._seq = 0
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._seq = max((e["seq"] for e in read(path)), default=-1) + 1
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def emit(self, kind: str, **fields: Any) -> None:
        missing = [f for f in KINDS[kind] if f not in fields]
        if missing:
            raise ValueError(f"event {kind!r} lacks {missing}")
        if self._fd < 0:
            return
        event = {"v": VERSION, "seq": self._seq, "t": round(time.time(), 3), "kind": kind, **_finite(fields)}
        os.write(self._fd, (json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n").encode())
        self._seq += 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path, offset: int = 0) -> Iterator[dict[str, Any]]:
    """The complete events from a byte offset on. An incomplete last line is not read."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _finite(value: Any) -> Any:
    """`value` with non-finite floats as the strings "nan", "inf" and "-inf", because JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
