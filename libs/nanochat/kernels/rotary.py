"""Rotary positions and the RMS norm of queries and keys in one pass over memory, forward and backward.

In the backward pass the compiler's own code reads its inputs twice, because the rotation pairs channel j with j + D/2 across
the norm's reduction. Here each row is read and written once. The gradients of queries and keys are written side by side, in
the layout of the single matrix product that computed both.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # (token, head) rows per program: with D = 128 and 4 warps each thread loads 16 bytes


@triton.jit
def _load2(q_ptr, k_ptr, q_at, k_at, is_q, is_k):
    return (tl.load(q_ptr + q_at, mask=is_q, other=0.0) + tl.load(k_ptr + k_at, mask=is_k, other=0.0)).to(tl.float32)


@triton.jit
def _store2(q_ptr, k_ptr, q_at, k_at, is_q, is_k, value):
    tl.store(q_ptr + q_at, value.to(tl.bfloat16), mask=is_q)
    tl.store(k_ptr + k_at, value.to(tl.bfloat16), mask=is_k)


@triton.jit
def _offsets(rows, length, Q: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):
    """Offsets of this program's rows: in the joint tensor, in q, in k and in the angle tables, and whether a row is q or k."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    token, head = row // (Q + K), row % (Q + K)
    channel = tl.arange(0, HALF)[None, :]
    inside = row < rows
    is_q, is_k = (inside & (head < Q))[:, None], (inside & (head >= Q))[:, None]
    at = row[:, None] * (2 * HALF) + channel
    q_at = (token * Q + head)[:, None] * (2 * HALF) + channel
    k_at = (token * K + head - Q)[:, None] * (2 * HALF) + channel
    angle = (token % length)[:, None] * HALF + channel
    return row, inside, at, q_at, k_at, is_q, is_k, angle


@triton.jit
def _forward(x_ptr, cos_ptr, sin_ptr, q_ptr, k_ptr, rstd_ptr, rows, length, eps, Q: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    row, inside, at, q_at, k_at, is_q, is_k, angle = _offsets(rows, length, Q, K, HALF, ROWS)
    mask = inside[:, None]
    cos = tl.load(cos_ptr + angle, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + angle, mask=mask, other=0.0).to(tl.float32)
    a = tl.load(x_ptr + at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(x_ptr + at + HALF, mask=mask, other=0.0).to(tl.float32)
    ra = a * cos + b * sin
    rb = b * cos - a * sin
    rstd = tl.rsqrt((tl.sum(ra * ra, 1) + tl.sum(rb * rb, 1)) / (2 * HALF) + eps)
    _store2(q_ptr, k_ptr, q_at, k_at, is_q, is_k, ra * rstd[:, None])
    _store2(q_ptr, k_ptr, q_at + HALF, k_at + HALF, is_q, is_k, rb * rstd[:, None])
    tl.store(rstd_ptr + row, rstd, mask=inside)


@triton.jit
def _backward(dq_ptr, dk_ptr, q_ptr, k_ptr, rstd_ptr, cos_ptr, sin_ptr, dx_ptr, rows, length, Q: tl.constexpr, K: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    row, inside, at, q_at, k_at, is_q, is_k, angle = _offsets(rows, length, Q, K, HALF, ROWS)
    mask = inside[:, None]
    cos = tl.load(cos_ptr + angle, mask=mask, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + angle, mask=mask, other=0.0).to(tl.float32)
    ya, yb = _load2(q_ptr, k_ptr, q_at, k_at, is_q, is_k), _load2(q_ptr, k_ptr, q_at + HALF, k_at + HALF, is_q, is_k)
    da, db = _load2(dq_ptr, dk_ptr, q_at, k_at, is_q, is_k), _load2(dq_ptr, dk_ptr, q_at + HALF, k_at + HALF, is_q, is_k)
    along = ((tl.sum(da * ya, 1) + tl.sum(db * yb, 1)) / (2 * HALF))[:, None]
    rstd = tl.load(rstd_ptr + row, mask=inside, other=0.0)[:, None]
    ga = (da - ya * along) * rstd
    gb = (db - yb * along) * rstd
    tl.store(dx_ptr + at, (ga * cos - gb * sin).to(tl.bfloat16), mask=mask)
    tl.store(dx_ptr + at + HALF, (ga * sin + gb * cos).to(tl.bfloat16), mask=mask)


@torch.library.custom_op("nanochat::rotary_norm", mutates_args=())
def rotary_norm(x: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate x, split it into queries and keys, and normalize each head.

    x (B, T, H + Hkv, D) bf16; cos and sin (T, D/2). Returns q (B, T, H, D), k (B, T, Hkv, D) and 1/rms (B, T, H + Hkv) fp32.
    """
    batch, length, both, width = x.shape
    x, q, k = x.contiguous(), x.new_empty(batch, length, heads, width), x.new_empty(batch, length, both - heads, width)
    rstd = x.new_empty(batch, length, both, dtype=torch.float32)
    sizes = {"Q": heads, "K": both - heads, "HALF": width // 2, "ROWS": ROWS}
    _forward[_grid(rstd)](x, cos, sin, q, k, rstd, rstd.numel(), length, eps, **sizes, num_warps=4)
    return q, k, rstd


@rotary_norm.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, heads: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    batch, length, both, width = x.shape
    q, k = x.new_empty(batch, length, heads, width), x.new_empty(batch, length, both - heads, width)
    return q, k, x.new_empty(batch, length, both, dtype=torch.float32)


@torch.library.custom_op("nanochat::rotary_norm_backward", mutates_args=())
def rotary_norm_backward(dq: Tensor, dk: Tensor, q: Tensor, k: Tensor, rstd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient (B, T, H + Hkv, D) of `rotary_norm`'s x, from its outputs and the gradients of q and k."""
    batch, length, heads, width = q.shape
    dx = q.new_empty(batch, length, heads + k.size(2), width)
    sizes = {"Q": heads, "K": k.size(2), "HALF": width // 2, "ROWS": ROWS}
    args = (dq.contiguous(), dk.contiguous(), q, k, rstd, cos, sin, dx, rstd.numel(), length)
    _backward[_grid(rstd)](*args, **sizes, num_warps=4)
    return dx


@rotary_norm_backward.register_fake
def _(dq: Tensor, dk: Tensor, q: Tensor, k: Tensor, rstd: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return q.new_empty(*q.shape[:2], q.size(2) + k.size(2), q.size(3))


def _grid(rstd: Tensor) -> tuple[int]:
    return (triton.cdiv(rstd.numel(), ROWS),)
