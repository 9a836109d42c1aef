"""Read what a stage appends to its files, by byte offset: only whole lines, each once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at a time
LONGEST = 1 << 22  # bytes; a longer line is cut, so that one without an end cannot block what follows


@dataclass(slots=True)
class Lines:
    """Consecutive lines, the number of the first, and the byte offset after the last."""

    first: int
    lines: list[bytes]
    end: int


class Tail:
    """Follows a growing file. `read` returns the same lines again until `advance` says that they are stored."""

    def __init__(self, path: Path):
        self.path = path
        self.offset, self.line = 0, 0

    def read(self, *, last: bool = False) -> Lines:
        """The next whole lines, at most a chunk of them. With `last`, an unfinished line at the end counts as whole."""
        batch = Lines(self.line, [], self.offset)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(CHUNK)
                while data and b"\n" not in data and len(data) < LONGEST and (more := file.read(CHUNK)):
                    data += more
        except FileNotFoundError:
            return batch
        if b"\n" in data:
            whole = data[: data.rindex(b"\n") + 1]
        elif last or len(data) >= LONGEST:
            whole = data
        else:
            return batch
        batch.lines = whole.removesuffix(b"\n").split(b"\n") if whole else []
        batch.end = self.offset + len(whole)
        return batch

    def advance(self, batch: Lines) -> None:
        self.offset, self.line = batch.end, batch.first + len(batch.lines)


def parse(lines: list[bytes]) -> list[dict[str, Any]]:
    """The events in these lines. An incomplete one, as a full disk leaves it, is skipped."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
            event["seq"], event["t"], event["kind"]
        except (ValueError, TypeError, KeyError):
            log.warning("skipped a line that is not an event: %.200r", line)
            continue
        events.append(event)
    return events
