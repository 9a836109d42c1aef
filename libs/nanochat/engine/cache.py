"""The KV cache: keys and values of the positions seen so far, allocated once at full length."""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Room for `capacity` positions in each of `n_layer` layers; `pos` of them are held. All rows stand at one position.

    Each layer's keys and values are (B, H, capacity, D) of the first chunk's batch, heads, dtype and device. `pos` moves
    on when the last layer has stored its part of a chunk, so every layer of a forward pass sees the same `pos`.
    """

    def __init__(self, n_layer: int, capacity: int):
        self.n_layer, self.capacity = n_layer, capacity
        self.pos: int | Tensor = 0  # the model's protocol also knows a position for each row
        self._held = 0
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._last: Tensor | None = None  # (B, 1, C), what `before` was given last

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store a chunk's k and v (B, H, T, D); returns all of this layer so far, (B, H, pos + T, D), as views."""
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
        """x (B, T, C) one position earlier, across chunks; zeros before the first."""
        first = torch.zeros_like(x[:, :1]) if self._last is None else self._last.to(x.dtype)
        self._last = x[:, -1:].clone()
        return torch.cat((first, x[:, :-1]), dim=1)

    def select(self, rows: Tensor, capacity: int | None = None) -> KVCache:
        """A new cache of the given rows (a row may repeat), as far as `pos`: one prompt for many samples, or the rows still
        at work once others have finished."""
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
