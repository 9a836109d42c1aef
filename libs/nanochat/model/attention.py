"""Causal self-attention with rotary positions, RMS-normed queries and keys, and an optional KV cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat import kernels
from nanochat.config.shape import GATE_CHANNELS, GPTConfig
from nanochat.model.layers import EPS, Linear, linears, norm

GATE_RANGE = 3.0  # the gate of a value embedding lies in (0, 3); nanochat's log of 2026-03-09


class Cache(Protocol):
    """Keys and values of earlier positions."""

    @property
    def pos(self) -> int | Tensor:
        """Positions already held: one number for all rows, or one per row (B,). The same in every layer of a forward pass."""
        ...

    def before(self, x: Tensor) -> Tensor:
        """Shift x (B, T, C) by one position: each position gets the previous one's entry, zeros at the start. Once per pass."""
        ...

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k and v (B, H, Tq, D) of this chunk; return the keys and values to attend to (B, H, Tk, D)."""
        ...


class Rotary(nn.Module):
    """Tables of cos and sin for `length` positions (Su et al. 2021). They are not saved in checkpoints."""

    cos: Tensor  # (length, D/2)
    sin: Tensor

    def __init__(self, head_dim: int, length: int, base: float):
        super().__init__()
        self.head_dim, self.length, self.base = head_dim, length, base
        cos, sin = self._tables(torch.get_default_device())
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def reset(self) -> None:
        """Recompute the tables on their present device. Needed after `to_empty`: a model built on "meta" has no values."""
        self.cos, self.sin = self._tables(self.cos.device)

    def at(self, length: int, cache: Cache | None) -> tuple[tuple[Tensor, Tensor], Tensor | None]:
        """cos and sin for the next `length` positions, each (1 or B, T, 1, D/2), and the positions (B, T) if rows differ,
        else None.

        Raises ValueError beyond the end of the tables.
        """
        pos = 0 if cache is None else cache.pos
        if isinstance(pos, int):
            if pos + length > self.length:
                raise ValueError(f"position {pos + length} is beyond the {self.length} the rotary tables hold")
            span = slice(pos, pos + length)
            return (self.cos[None, span, None], self.sin[None, span, None]), None
        positions = pos[:, None] + torch.arange(length, device=pos.device)
        return (self.cos[positions][:, :, None], self.sin[positions][:, :, None]), positions

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        channel = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device)
        angle = torch.outer(
            torch.arange(self.length, dtype=torch.float32, device=device), self.base ** (-channel / self.head_dim)
        )
        return angle.cos(), angle.sin()


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """x (B, T, H, D) rotated by minus its position's angles, channel j with j + D/2. Checkpoints depend on this sign."""
    cos, sin = (table.to(x.dtype) for table in rotary)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)


def fused_rotary_norm(x: Tensor, rotary: tuple[Tensor, Tensor], heads: int) -> tuple[Tensor, Tensor]:
    """`norm(rotate(x))` in one kernel, for x (B, T, H + Hkv, D) bf16 on CUDA: q (B, T, H, D) and k (B, T, Hkv, D)."""
    cos, sin = (table.view(x.size(1), -1) for table in rotary)
    q, k = _RotaryNorm.apply(x, cos, sin, heads)
    return q, k


class _RotaryNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        q, k, rstd = kernels.rotary.rotary_norm(x, cos, sin, heads, EPS)
        ctx.save_for_backward(q, k, rstd, cos, sin)
        return q, k

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return kernels.rotary.rotary_norm_backward(*grads, *ctx.saved_tensors), None, None, None


class Attention(nn.Module):
    """Grouped-query attention of one layer: `n_head` query heads share `n_kv_head` heads of keys and values."""

    # (x, *weights) -> outputs; `fp8` and `accumulate` replace it.
    matmuls: Callable[..., tuple[Tensor, ...]] = staticmethod(linears)

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.layer = layer
        self.n_head, self.n_kv_head, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.q = Linear(config.n_embd, self.n_head * self.head_dim)
        self.k = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.v = Linear(config.n_embd, self.n_kv_head * self.head_dim)
        self.out = Linear(config.n_embd, config.n_embd)
        self.window = config.window_of(layer)
        # Scaling both queries and keys by s scales their products by s^2. None means SDPA's default, 1 / sqrt(D).
        self.scale = config.qk_scale**2 / math.sqrt(self.head_dim) if config.qk_scale != 1.0 else None
        if config.has_value_embed(layer):
            self.value_gate = Linear(min(GATE_CHANNELS, config.n_embd), self.n_kv_head)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        positions: Tensor | None,
        cache: Cache | None,
        value_embed: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, C) to (B, T, C).

        `positions` (B, T) is given if the rows of the cache are at different positions. `value_embed` (B, T, H_kv * D) is added
        to the values, through one gate per head.
        """
        length = x.size(1)
        q, k, v = (part.transpose(1, 2) for part in self._projections(x, rotary))
        if value_embed is not None:
            v = v + self._gated(value_embed, x)
        if cache is not None:
            k, v = cache.update(self.layer, k, v)
        mask = attention_mask(length, k.size(2), positions, x.device, self.window)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=mask is None and length > 1,
            scale=self.scale,
            enable_gqa=self.n_head != self.n_kv_head,
        )
        mixed: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return mixed

    def _projections(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated and normed q (B, T, H, D) and k (B, T, Hkv, D), and v (B, T, Hkv, D)."""
        batch, length, _ = x.shape
        heads = self.n_head + self.n_kv_head
        if kernels.usable(x):  # q and k from one product, so the gradient of x needs one product and one pass less
            both, v = self.matmuls(x, torch.cat((self.q.weight, self.k.weight)), self.v.weight)
            q, k = fused_rotary_norm(both.view(batch, length, heads, self.head_dim), rotary, self.n_head)
            return q, k, v.view_as(k)
        q = self.q(x).view(batch, length, self.n_head, self.head_dim)
        k = self.k(x).view(batch, length, self.n_kv_head, self.head_dim)
        v = self.v(x).view_as(k)
        if length == 1:  # one token: the number of operators counts, not the bytes that they copy
            both = norm(rotate(torch.cat((q, k), dim=2), rotary))
            return both[:, :, : self.n_head], both[:, :, self.n_head :], v
        return norm(rotate(q, rotary)), norm(rotate(k, rotary)), v

    def _gated(self, value_embed: Tensor, x: Tensor) -> Tensor:
        """The value embedding times its gate, (B, H_kv, T, D)."""
        gate = GATE_RANGE * torch.sigmoid(self.value_gate(x[..., : self.value_gate.in_features]))  # (B, T, H_kv)
        gated: Tensor = gate.unsqueeze(-1) * value_embed.view(*gate.shape, self.head_dim)
        return gated.transpose(1, 2)


def attention_mask(
    queries: int, keys: int, positions: Tensor | None, device: torch.device, window: int | None = None
) -> Tensor | None:
    """True where a query may attend to a key. None if no mask is needed or SDPA's causal flag does the same.

    The shape is (queries, keys), or (B, 1, queries, keys) with `positions`. The queries are the last `queries` of the `keys`
    positions, unless `positions` (B, Tq) gives the position of each. A query sees no later key, so the unused end of a cache
    longer than its row stays hidden; with `window` it sees only the latest `window` keys, its own included.
    """
    reach = keys if window is None else min(window, keys)
    if positions is not None:
        keys_at, queries_at = torch.arange(keys, device=device), positions[:, None, :, None]
        seen = keys_at <= queries_at  # (B, 1, Tq, Tk)
        return seen if reach == keys else seen & (keys_at > queries_at - reach)
    if reach == keys and queries in (1, keys):
        return None
    ahead = keys - queries
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device).tril(diagonal=ahead)
    return seen if reach == keys else seen.triu(diagonal=ahead - reach + 1)
