"""The KV cache: one pool of blocks for all rows, and the view of it that the model works with in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.config.shape import GPTConfig


class Pool:
    """Keys and values of `count` blocks of `size` positions in every layer, each (layers, count, size, H, D).

    The pool starts as zeros: a masked position adds 0 x its value, which must not be 0 x NaN.
    """

    def __init__(self, config: GPTConfig, count: int, size: int, dtype: torch.dtype, device: torch.device):
        self.size, self.device = size, device
        shape = (config.n_layer, count, size, config.n_kv_head, config.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    def table(self, rows: Sequence[Sequence[int]], length: int) -> Tensor:
        """The blocks of each row's first `length` positions, (B, W); block 0 stands after a row's end."""
        width = -(-length // self.size)
        return torch.tensor([[*row[:width], *[0] * (width - len(row))] for row in rows], device=self.device)

    def copy(self, source: int, target: int) -> None:
        """Copy one block."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]


class PoolView:
    """What the model sees of the pool in one pass: B rows, each with `new` more positions after those it has.

    `cached` are the numbers of positions that the rows have. `previous` (B, 1, C) is the embedding of the token before each
    row's new ones, for models that smear.
    """

    def __init__(
        self, pool: Pool, rows: Sequence[Sequence[int]], cached: Sequence[int], new: int, previous: Tensor | None = None
    ):
        self._pool, self._previous = pool, previous
        self._length = max(cached) + new
        self._table = pool.table(rows, self._length)
        # Rows of one length need no mask, and attention without a mask is faster.
        self.pos: int | Tensor = cached[0] if min(cached) == max(cached) else torch.tensor(cached, device=pool.device)
        write = torch.tensor(cached, device=pool.device)[:, None] + torch.arange(new, device=pool.device)
        self._block, self._offset = self._table.gather(1, write // pool.size), write % pool.size  # (B, new) each

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, new, D) of the new positions; return those of all positions, (B, H, L, D)."""
        return self._updated(self._pool.keys[layer], k), self._updated(self._pool.values[layer], v)

    def before(self, x: Tensor) -> Tensor:
        """x (B, new, C) one position earlier."""
        assert self._previous is not None
        return torch.cat((self._previous.to(x.dtype), x[:, :-1]), dim=1)

    def _updated(self, blocks: Tensor, new: Tensor) -> Tensor:
        """`blocks` (count, size, H, D) with the new positions; those of the rows."""
        blocks[self._block, self._offset] = new.transpose(1, 2).to(blocks.dtype)
        rows, width = self._table.shape
        held = blocks.index_select(0, self._table.flatten())  # whole blocks: far fewer and larger pieces than positions
        return held.view(rows, width * blocks.size(1), *blocks.shape[2:])[:, : self._length].transpose(1, 2)
