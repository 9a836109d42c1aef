"""Reading what a stage appends to its files, by byte offset: whole lines only, each once."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at a time
LONGEST = 1 << 22  # a line beyond this is cut, so that one without an end cannot stall the rest


@dataclass(slots=True)
class Batch:
    """Lines, the number of the first, and the offset behind the last."""

    first: int
    lines: list[bytes]
    end: int


class Tail:
    """Follows a growing file. `advance` only after a batch is stored: until then the next `read` gives it again."""

    def __init__(self, path: Path):
        self.path = path
        self.offset, self.line = 0, 0

    def read(self, *, last: bool = False) -> Batch:
        """The next whole lines, at most a chunk of them; with `last` an unfinished final line counts as whole."""
        batch = Batch(self.line, [], self.offset)
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

    def advance(self, batch: Batch) -> None:
        self.offset, self.line = batch.end, batch.first + len(batch.lines)


def parse(lines: list[bytes]) -> list[dict[str, Any]]:
    """The events among these lines; a torn one, as a full disk leaves, is skipped."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
            event["seq"], event["t"], event["kind"]
        except (ValueError, TypeError, KeyError):
            log.warning("skipped a line that is no event: %.200r", line)
            continue
        events.append(event)
    return events
