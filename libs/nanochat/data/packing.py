"""Put documents and conversations into rows: a token queue that remembers origins, a best-fit buffer, and padded rows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -1  # a target that does not count in the loss

Place = TypeVar("Place")
Item = TypeVar("Item")


class TokenQueue(Generic[Place]):
    """A first-in, first-out queue of tokens. Each pushed array has a place in the data; resuming starts at the head's place."""

    def __init__(self) -> None:
        self._segments: deque[tuple[Place, np.ndarray]] = deque()
        self._offset = 0  # tokens already taken from the first segment
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, place: Place, tokens: np.ndarray, skip: int = 0) -> None:
        """Append the `tokens` of `place`. The first `skip` of them count as already taken, which only an empty queue allows."""
        if skip and self._segments:
            raise ValueError("tokens can be skipped only at the head of the queue")
        if skip >= len(tokens):
            return
        if not self._segments:
            self._offset = skip
        self._segments.append((place, tokens))
        self._length += len(tokens) - skip

    def pop(self, count: int) -> np.ndarray:
        """Remove and return the next `count` tokens, (count,) int64. Raises IndexError when there are fewer."""
        if count > self._length:
            raise IndexError(f"{count} tokens requested, {self._length} queued")
        out = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            _, tokens = self._segments[0]
            take = min(count - filled, len(tokens) - self._offset)
            out[filled : filled + take] = tokens[self._offset : self._offset + take]
            filled += take
            self._offset += take
            if self._offset == len(tokens):
                self._segments.popleft()
                self._offset = 0
        self._length -= count
        return out

    def head(self) -> tuple[Place, int] | None:
        """(place of the next token, tokens already taken from that place); None when the queue is empty."""
        return (self._segments[0][0], self._offset) if self._segments else None


class BestFit(Generic[Place]):
    """Documents that wait to be placed into rows of `row` tokens. Each is cut to that length when it is added.

    They are sorted by length, so that a look-up costs O(log n). Of documents of equal length, the first added is taken first.
    `placed` counts the tokens returned by `take`, `cropped` those cut off.
    """

    def __init__(self, row: int) -> None:
        self._row = row
        self._waiting: list[tuple[int, int, Place, np.ndarray]] = []  # (length, -arrival) is unique, so arrays never compare
        self._arrivals = 0
        self.placed = self.cropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def places(self) -> list[Place]:
        """The places of all waiting documents, in no particular order."""
        return [place for _, _, place, _ in self._waiting]

    def add(self, place: Place, tokens: np.ndarray) -> None:
        """Add a document. The part that is kept is copied, so `tokens` may be a view of a large array."""
        kept = tokens[: self._row].copy()
        self.cropped += len(tokens) - len(kept)
        insort(self._waiting, (len(kept), -self._arrivals, place, kept))
        self._arrivals += 1

    def take(self, room: int) -> np.ndarray:
        """Remove and return the longest document of at most `room` tokens, or, if none fits, the shortest cut to `room` tokens.

        Raises IndexError when no document waits.
        """
        fitting = bisect_left(self._waiting, (room + 1,))  # (room + 1,) sorts before every longer tuple that begins so
        *_, tokens = self._waiting.pop(max(fitting - 1, 0))
        taken = tokens[:room]
        self.cropped += len(tokens) - len(taken)
        self.placed += len(taken)
        return taken

    def take_whole(self, room: int) -> np.ndarray | None:
        """Remove and return the longest document of at most `room` tokens; None when none fits."""
        return self.take(room) if bisect_left(self._waiting, (room + 1,)) else None


def shift(stream: np.ndarray, batch_size: int, seq_len: int) -> tuple[Tensor, Tensor]:
    """Turn a stream of (B*T + 1,) tokens into inputs and targets, both (B, T) int64. A target is the token after its input."""
    tokens = torch.from_numpy(stream)
    return tokens[:-1].view(batch_size, seq_len), tokens[1:].view(batch_size, seq_len)


def pad_rows(
    rows: Sequence[tuple[list[int], list[int]]], pad: int, width: int | None = None, *, multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Turn rows of (ids, mask) into inputs and targets, both (B, T) int64, padded on the right.

    A row of n ids gives n - 1 positions. T is `width`, or the longest row rounded up to a `multiple`. Targets where the mask is 0,
    and in the padding, are `IGNORE`.
    """
    width = width or round_up(max(len(ids) for ids, _ in rows) - 1, multiple)
    inputs = torch.full((len(rows), width), pad, dtype=torch.int64)
    targets = torch.full((len(rows), width), IGNORE, dtype=torch.int64)
    for r, (ids, mask) in enumerate(rows):
        row, trained = torch.tensor(ids), torch.tensor(mask[1:], dtype=torch.bool)
        inputs[r, : len(ids) - 1] = row[:-1]
        targets[r, : len(ids) - 1] = torch.where(trained, row[1:], IGNORE)
    return inputs, targets


def by_length(items: Iterable[Item], shape: Callable[[Item], tuple[int, int]], positions: int) -> Iterator[list[Item]]:
    """Yield all `items` in groups that are padded to their longest, the longest first.

    `shape(item)` is its rows and their length. A group of several items has at most `positions` positions, padding included.
    """
    group: list[Item] = []
    rows = width = 0
    for item in sorted(items, key=lambda item: shape(item)[1], reverse=True):
        more, length = shape(item)
        if group and (rows + more) * width > positions:
            yield group
            group, rows = [], 0
        width = width if group else length
        group.append(item)
        rows += more
    if group:
        yield group


def join(batches: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Put the rows of several batches of inputs and targets (B, T) into one, padded on the right to the longest."""
    width = max(inputs.size(1) for inputs, _ in batches)
    padded = [
        (F.pad(inputs, (0, width - inputs.size(1))), F.pad(targets, (0, width - targets.size(1)), value=IGNORE))
        for inputs, targets in batches
    ]
    return torch.cat([inputs for inputs, _ in padded]), torch.cat([targets for _, targets in padded])


def round_up(size: int, multiple: int) -> int:
    """The least multiple that is not smaller."""
    return -(-size // multiple) * multiple
