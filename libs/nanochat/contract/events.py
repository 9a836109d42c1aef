"""The events of a stage, its only output while it runs: JSON lines appended to `events.jsonl`. Imports no torch.

Each line is `{"v": 1, "seq": n, "t": unix seconds, "kind": ..., ...}` with the fields of its kind below. One `write` call
writes the whole line, so a reader that stops at the last newline never sees half an event. A disk that was full for a while, or a
defect, can still leave a line that is no event: `lines.sift` sets those aside.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanochat.contract.lines import LONGEST, sift

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


# Without these the platform cannot use what the stage made, so they must not get lost on a full disk. All others may.
ESSENTIAL = frozenset({"eval", "checkpoint", "checkpoint_deleted", "artifact"})


class EventLog:
    """Appends events to a file. `seq` continues that of an existing file. Without a path (ranks other than 0) it writes nothing."""

    def __init__(self, path: Path | None):
        self._fd = -1
        self._seq = 0
        self._lost = 0  # events that the full disk did not take
        self._torn = False  # the file ends inside a line
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._seq = max((e["seq"] for e in read(path)), default=-1) + 1
            self._torn = _ends_inside_a_line(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def emit(self, kind: str, **fields: Any) -> None:
        """Append an event. While the disk takes none, an event that is not essential is left out, and a warning says so later.

        Raises OSError when an essential event cannot be written, and ValueError for a missing field.
        """
        missing = [f for f in KINDS[kind] if f not in fields]
        if missing:
            raise ValueError(f"event {kind!r} lacks {missing}")
        if self._fd < 0:
            return
        try:
            if self._lost:
                message = f"{self._lost} events could not be written and are missing: the disk was full or could not be written"
                self._write("warning", {"code": "events_lost", "message": message})
                self._lost = 0
            self._write(kind, fields)
        except OSError:
            if kind in ESSENTIAL:
                raise
            self._lost += 1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, kind: str, fields: dict[str, Any]) -> None:
        event = {"v": VERSION, "seq": self._seq, "t": round(time.time(), 3), "kind": kind, **_finite(fields)}
        text = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
        line = (b"\n" if self._torn else b"") + text.encode(errors="replace")
        written = os.write(self._fd, line)
        self._torn = written < len(line) and (written > 0 or self._torn)
        if written < len(line):
            raise OSError(errno.ENOSPC, "the event was written in part")
        self._seq += 1


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file. An incomplete last line is not read, and a line that is no event is skipped."""
    if not path.exists():
        return
    last_seq, number = -1, 0
    with path.open("rb") as file:
        while (line := file.readline(LONGEST)) and (line.endswith(b"\n") or len(line) == LONGEST):
            sifted = sift([line], number, last_seq)
            last_seq, number = sifted.last_seq, number + 1
            yield from sifted.events


def _ends_inside_a_line(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:  # a file of no bytes cannot seek before its beginning
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"
    return False


def _finite(value: Any) -> Any:
    """`value` with non-finite floats as the strings "nan", "inf" and "-inf", because JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
