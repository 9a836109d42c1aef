"""The KV cache: one pool of blocks for all rows, and the view of it that the model uses in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.config.shape import GPTConfig


class Pool:
    """The keys and the values of `count` blocks of `size` positions in every layer, both (layers, count + 1, size, H, D).

    One more block, `scratch`, takes what is written for padding.

    The pool starts with zeros: attention adds 0 x the value of a masked position, and 0 x NaN would be NaN.
    """

    def __init__(self, config: GPTConfig, count: int, size: int, dtype: torch.dtype, device: torch.device):
        self.size, self.device, self.scratch = size, device, count
        self.keys, self.values = (_blocks(config, count + 1, size, dtype, device) for _ in range(2))

    def table(self, rows: Sequence[Sequence[int]], length: int) -> Tensor:
        """The blocks of each row's first `length` positions, (B, W). After the end of a row, `scratch` fills the table."""
        width = -(-length // self.size)
        return torch.tensor([[*row[:width], *[self.scratch] * (width - len(row))] for row in rows], device=self.device)

    def copy(self, source: int, target: int) -> None:
        """Copy the content of block `source` to block `target`."""
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]

    def copy_all(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy the content of each of the blocks `sources` to the block at its place in `targets`."""
        source, target = on_device(sources, self.device), on_device(targets, self.device)
        for held in (self.keys, self.values):
            held[:, target] = held[:, source]


class PoolView:
    """The part of the pool that the model uses in one pass: B rows, each with `new` positions after its cached ones.

    `cached` holds the number of cached positions of each row. `previous` (B, 1, C) is the embedding of the token before each
    row's new tokens, for models with `smear`.
    """

    def __init__(
        self, pool: Pool, rows: Sequence[Sequence[int]], cached: Sequence[int], new: int, previous: Tensor | None = None
    ):
        self._pool, self._previous = pool, previous
        self._length = max(cached) + new
        self._table = pool.table(rows, self._length)
        # Rows of equal length need no mask, and attention is faster without one.
        self.pos: int | Tensor = cached[0] if min(cached) == max(cached) else torch.tensor(cached, device=pool.device)
        write = torch.tensor(cached, device=pool.device)[:, None] + torch.arange(new, device=pool.device)
        self._block, self._offset = self._table.gather(1, write // pool.size), write % pool.size  # (B, new) each

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v of the new positions, both (B, H, new, D). Returns those of all positions, both (B, H, L, D)."""
        return self._updated(self._pool.keys[layer], k), self._updated(self._pool.values[layer], v)

    def before(self, x: Tensor) -> Tensor:
        """Shift x (B, new, C) by one position, so that every position gets its predecessor."""
        assert self._previous is not None
        return torch.cat((self._previous.to(x.dtype), x[:, :-1]), dim=1)

    def _updated(self, blocks: Tensor, new: Tensor) -> Tensor:
        """Write the new positions into `blocks` (count, size, H, D). Returns all positions of the rows, (B, H, L, D)."""
        blocks[self._block, self._offset] = new.transpose(1, 2).to(blocks.dtype)
        rows, width = self._table.shape
        held = blocks.index_select(0, self._table.flatten())  # gathers whole blocks: far fewer pieces than single positions
        return held.view(rows, width * blocks.size(1), *blocks.shape[2:])[:, : self._length].transpose(1, 2)


def on_device(values: Sequence[int], device: torch.device) -> Tensor:
    """The values as a tensor (N,) int64. On a GPU the host does not wait for the copy, as it does for one from pageable memory."""
    here = torch.tensor(values, dtype=torch.int64)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here.to(device)


def _blocks(config: GPTConfig, count: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros (layers, count, size, H, D). On a GPU the positions of one head in a block lie side by side: its kernels read those."""
    shape = (config.n_layer, count, size, config.n_kv_head, config.head_dim)
    if device.type == "cuda":
        return torch.zeros(*shape[:2], shape[3], shape[2], shape[4], dtype=dtype, device=device).transpose(2, 3)
    return torch.zeros(shape, dtype=dtype, device=device)
