"""Decoding on a CPU: the keys and values of the rows that decode, side by side, so that a step does not gather them anew.

Gathering the blocks of 32 rows took 54 % of a step of the recipe `tiny`. Here a row is copied once, when it begins to decode;
after that a step only adds one position to each row. The pool stays complete, for other rows and for a later start.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.engine.cache import Pool
from nanochat.engine.request import Row

LENGTH_UNIT = 64  # lengths are rounded up to it, so that the copies are seldom made larger


class Dense:
    """Copies of rows, one per slot: keys and values (layers, rows, length, H, D). They take no more memory than the pool."""

    def __init__(self, pool: Pool):
        self._pool = pool
        self._limit = pool.keys.size(1) * pool.size  # positions
        self.forget()

    def forget(self) -> None:
        """Drop all copies: the weights have changed, or they take too much memory."""
        self.keys, self.values = (t.new_zeros(t.size(0), 0, 0, *t.shape[3:]) for t in (self._pool.keys, self._pool.values))
        self._rows: list[Row | None] = []
        self._held: list[int] = []  # positions that are copied of each row

    def arrange(self, rows: Sequence[Row]) -> list[int] | None:
        """Put the cached positions of `rows` into the first slots. Returns the index in `rows` of the row in each slot.

        None when the rows are too many or too long to be copied.
        """
        count, longest = len(rows), max(row.cached for row in rows) + 1
        if not self._reserve(count, longest):
            self.forget()
            return None
        at = {row: index for index, row in enumerate(rows)}
        order = [-1] * count
        moved: list[tuple[int, int]] = []  # (index, slot beyond the first ones, whose copy is still good)
        for slot, (row, held) in enumerate(zip(self._rows, self._held, strict=True)):
            if row is not None and row in at and held == row.cached:
                index = at.pop(row)
                if slot < count:
                    order[slot] = index
                else:
                    moved.append((index, slot))
        holes = [slot for slot, index in enumerate(order) if index < 0]
        for (index, source), slot in zip(moved, holes, strict=False):  # there are at least as many holes
            for buffer in (self.keys, self.values):
                buffer[:, slot, : rows[index].cached] = buffer[:, source, : rows[index].cached]
            order[slot], self._rows[source] = index, None
        for index, slot in zip(at.values(), holes[len(moved) :], strict=True):
            self._copy(rows[index], slot)
            order[slot] = index
        for slot, index in enumerate(order):
            self._rows[slot], self._held[slot] = rows[index], rows[index].cached + 1  # the step adds one position
        return order

    def _reserve(self, count: int, longest: int) -> bool:
        """Make room for `count` rows of `longest` positions, if that is within the limit."""
        _, slots, length = self.keys.shape[:3]
        if count > slots or longest > length:
            slots, length = max(count, 2 * slots), max(-(-longest // LENGTH_UNIT) * LENGTH_UNIT, length)
            slots = max(count, min(slots, self._limit // length))
            if slots * length > self._limit:
                slots, length = count, longest
            if slots * length > self._limit:
                return False
            self.keys, self.values = self._enlarged(self.keys, slots, length), self._enlarged(self.values, slots, length)
            self._rows = [*self._rows, *[None] * slots][:slots]
            self._held = [*self._held, *[0] * slots][:slots]
        return True

    def _enlarged(self, old: Tensor, slots: int, length: int) -> Tensor:
        new = old.new_zeros(old.size(0), slots, length, *old.shape[3:])
        slots, length = min(slots, old.size(1)), min(length, old.size(2))
        new[:, :slots, :length] = old[:, :slots, :length]
        return new

    def _copy(self, row: Row, slot: int) -> None:
        blocks = torch.tensor(row.blocks[: -(-row.cached // self._pool.size)])
        for buffer, source in ((self.keys, self._pool.keys), (self.values, self._pool.values)):
            buffer[:, slot, : row.cached] = source[:, blocks].flatten(1, 2)[:, : row.cached]


class DenseView:
    """What the model sees when each of the rows in the first slots has one new token. `previous` as in `PoolView`."""

    def __init__(self, dense: Dense, pool: Pool, rows: Sequence[Row], previous: Tensor | None = None):
        self._dense, self._pool, self._previous = dense, pool, previous
        cached = [row.cached for row in rows]
        self._rows, self._length = len(rows), max(cached) + 1
        self._slots, self._at = torch.arange(len(rows)), torch.tensor(cached)
        self._blocks = torch.tensor([row.blocks[row.cached // pool.size] for row in rows])
        self._even = cached[0] if min(cached) == max(cached) else None
        self.pos: int | Tensor = self._at if self._even is None else self._even  # rows of one length need no mask

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, 1, D) of the new positions. Returns those of all positions, both (B, H, L, D)."""
        return self._updated(self._dense.keys[layer], k), self._updated(self._dense.values[layer], v)

    def before(self, x: Tensor) -> Tensor:
        """The embedding of each row's previous token, in place of x (B, 1, C)."""
        assert self._previous is not None
        return self._previous.to(x.dtype)

    def finish(self) -> None:
        """Write the new positions of all layers to the pool. Call it after the model."""
        offset = self._at % self._pool.size
        self._pool.keys[:, self._blocks, offset] = self._dense.keys[:, self._slots, self._at]
        self._pool.values[:, self._blocks, offset] = self._dense.values[:, self._slots, self._at]

    def _updated(self, held: Tensor, new: Tensor) -> Tensor:
        if self._even is None:
            held[self._slots, self._at] = new.squeeze(2).to(held.dtype)
        else:
            held[: self._rows, self._even] = new.squeeze(2).to(held.dtype)
        return held[: self._rows, : self._length].transpose(1, 2)
