"""Read what a stage appends to its files, by byte offset: only whole lines, each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanochat.contract.lines import LONGEST

CHUNK = 1 << 20  # bytes read at a time
MOST_LINES = 2000  # of one batch, which is one transaction: a megabyte of empty lines would be a million


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
        """The next whole lines, at most a chunk and MOST_LINES of them. With `last`, an unfinished line at the end counts as whole."""
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
        parts = whole.removesuffix(b"\n").split(b"\n", MOST_LINES) if whole else []
        batch.lines = parts[:MOST_LINES]
        cut = len(parts) > MOST_LINES  # the rest of the chunk is read again with the next batch
        batch.end = self.offset + (sum(len(line) + 1 for line in batch.lines) if cut else len(whole))
        return batch

    def advance(self, batch: Lines) -> None:
        self.offset, self.line = batch.end, batch.first + len(batch.lines)
