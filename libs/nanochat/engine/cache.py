"""The KV cache: keys and values of all positions so far, in memory that is allocated once at full length."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Has room for `capacity` positions in each of `n_layer` layers. `pos` positions are filled, the same number in every row.

    The keys and the values of a layer are (B, H, capacity, D) tensors. The first chunk determines B, H, D, dtype and device.
    `pos` advances when the last layer has stored its part of a chunk, so every layer of a forward pass sees the same `pos`.
    """

    def __init__(self, n_layer: int, capacity: int):
        self.n_layer, self.capacity = n_layer, capacity
        self.pos: int | Tensor = 0  # the model also accepts caches that have a position for each row
        self._held = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._last: Tensor | None = None  # (B, 1, C): the last position that was passed to `before`

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store a chunk's k and v, both (B, H, T, D). Returns all keys and values of this layer, both (B, H, pos + T, D) views.

        Raises ValueError when the chunk does not fit.
        """
        end = self._held + k.size(2)
        if end > self.capacity:
            raise ValueError(f"{end} positions do not fit a cache of {self.capacity}")
        if layer == len(self._keys):
            batch, heads, _, width = k.shape
            self._keys.append(k.new_empty(batch, heads, self.capacity, width))
            self._values.append(v.new_empty(batch, heads, self.capacity, width))
        keys, values = self._keys[layer], self._values[layer]
        keys[:, :, self._held : end] = k
        values[:, :, self._held : end] = v
        if layer == self.n_layer - 1:
            self.pos = self._held = end
        return keys[:, :, :end], values[:, :, :end]

    def before(self, x: Tensor) -> Tensor:
        """Shift x (B, T, C) by one position, across chunks: every position gets its predecessor, the very first one zeros."""
        first = torch.zeros_like(x[:, :1]) if self._last is None else self._last.to(x.dtype)
        self._last = x[:, -1:].clone()
        return torch.cat((first, x[:, :-1]), dim=1)

    def select(self, rows: Tensor, capacity: int | None = None) -> KVCache:
        """Return a new cache with copies of the given rows up to `pos`. A row may repeat.

        Used to give one prompt to many samples, and to drop finished rows. Raises ValueError when `capacity` is too small.
        """
        other = KVCache(self.n_layer, capacity or self.capacity)
        if other.capacity < self._held:
            raise ValueError(f"a cache of {other.capacity} cannot hold the {self._held} positions of this one")
        other.pos = other._held = self._held
        other._keys = [_selected(t, rows, self._held, other.capacity) for t in self._keys]
        other._values = [_selected(t, rows, self._held, other.capacity) for t in self._values]
        other._last = None if self._last is None else self._last[rows]
        return other


def _selected(stored: Tensor, rows: Tensor, pos: int, capacity: int) -> Tensor:
    _, heads, _, width = stored.shape
    fresh = stored.new_empty(len(rows), heads, capacity, width)
    fresh[:, :, :pos] = stored[rows, :, :pos]
    return fresh
