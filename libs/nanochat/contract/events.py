"""The only way a stage speaks to the world: one JSON object a line, appended to `events.jsonl`. Imports no torch.

Every line is `{"v": 1, "seq": n, "t": unix seconds, "kind": ..., ...}` with the fields of its kind below. A line is
written whole with one `write` call, so a reader that stops at the last newline never sees half an event.
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

# kind -> required fields. Readers ignore fields they do not know.
KINDS: dict[str, tuple[str, ...]] = {
    "progress": ("done", "total", "unit"),  # + eta_s, note
    "metric": ("step", "values"),  # values: {key: float}
    "sample": ("step", "prompt", "text"),
    "eval": ("name", "values"),  # + step, detail
    "checkpoint": ("step", "path", "sha256", "bytes", "final"),  # + val_bpb, stall_ms, write_s
    "checkpoint_deleted": ("step", "path"),  # said before it is done: what is offered is there
    "artifact": ("name", "path", "sha256"),
    "log": ("level", "message"),
    "warning": ("code", "message"),
    "error": ("code", "message"),  # + hint
}


class EventLog:
    """Appends events to a file; numbering continues when an attempt appends to an existing file. Only rank 0 writes."""

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
    """The whole events from a byte offset on; an unfinished last line is left for the next read."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _finite(value: Any) -> Any:
    """JSON has no NaN: non-finite floats become the strings "nan", "inf", "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
