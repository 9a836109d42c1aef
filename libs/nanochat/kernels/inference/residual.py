"""What is done to the residual stream, one program per row: embeddings, mixtures of streams, and what needs its RMS norm.

The norm before a matrix product is a factor per row. cuBLAS multiplies the stream as it is, and the kernel after the product applies the
factor, which it takes from the stream itself.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.inference.dependent import chained, wait
from nanochat.kernels.launch import launched


@triton.jit
def rstd(x_ptr, row, C, eps, BLOCK: tl.constexpr):
    """1 / RMS of one row of the stream (B, C)."""
    c = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row.to(tl.int64) * C + c, mask=c < C, other=0.0).to(tl.float32)
    return tl.rsqrt(tl.sum(x * x, 0) / C + eps)


@triton.jit
def _embed(ids_ptr, source_ptr, drawn_ptr, table_ptr, token_ptr, out_ptr, squares_ptr, C, ids_stride, source_stride, eps, BLOCK: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    wait(CHAINED)
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(source_ptr + row * source_stride)
    token = tl.load(ids_ptr + row * ids_stride).to(tl.int64)
    if source >= 0:
        token = tl.load(drawn_ptr + source)
    tl.store(token_ptr + row, token)
    c = tl.arange(0, BLOCK)
    x = tl.load(table_ptr + token * C + c, mask=c < C, other=0.0).to(tl.float32)
    y = (x * tl.rsqrt(tl.sum(x * x, 0) / C + eps)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row * C + c, y, mask=c < C)
    tl.store(squares_ptr + row, tl.sum(y.to(tl.float32) * y.to(tl.float32), 0))


@triton.jit
def _mix(x_ptr, other_ptr, own_ptr, share_ptr, squares_ptr, C, SIGN: tl.constexpr, OWN: tl.constexpr, BLOCK: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    wait(CHAINED)
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * C + c, mask=c < C, other=0.0).to(tl.float32)
    if OWN:
        x *= tl.load(own_ptr)
    x += SIGN * tl.load(share_ptr) * tl.load(other_ptr + row * C + c, mask=c < C, other=0.0).to(tl.float32)
    y = x.to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row * C + c, y, mask=c < C)
    tl.store(squares_ptr + row, tl.sum(y.to(tl.float32) * y.to(tl.float32), 0))


@triton.jit
def _smear(x_ptr, before_ptr, table_ptr, gate_ptr, amount_ptr, squares_ptr, C, before_stride, channels, eps, BLOCK: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    wait(CHAINED)
    row, c = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    before = tl.load(before_ptr + row * before_stride).to(tl.int64)
    x = tl.load(x_ptr + row * C + c, mask=c < C, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + c, mask=c < channels, other=0.0).to(tl.float32)
    share = tl.load(amount_ptr) / (1.0 + tl.exp(-tl.sum(gate * x, 0)))
    past = tl.load(table_ptr + tl.maximum(before, 0) * C + c, mask=c < C, other=0.0).to(tl.float32)
    past *= tl.rsqrt(tl.sum(past * past, 0) / C + eps)
    y = (x + tl.where(before >= 0, share, 0.0) * past).to(x_ptr.dtype.element_ty)
    tl.store(x_ptr + row * C + c, y, mask=c < C)
    tl.store(squares_ptr + row, tl.sum(y.to(tl.float32) * y.to(tl.float32), 0))


@triton.jit
def _relu2(u_ptr, x_ptr, C, size, eps, NORM: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, CHAINED: tl.constexpr):
    wait(CHAINED)
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    u = tl.load(u_ptr + row * size + at, mask=at < size, other=0.0).to(tl.float32)
    if NORM:
        u *= rstd(x_ptr, row, C, eps, BLOCK)
    u = tl.maximum(u, 0.0)
    tl.store(u_ptr + row * size + at, (u * u).to(u_ptr.dtype.element_ty), mask=at < size)


@triton.jit
def _value_embed(qkv_ptr, x_ptr, token_ptr, table_ptr, gate_ptr, C, channels, scale, eps, NORM: tl.constexpr, H: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    wait(CHAINED)
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c, d = tl.arange(0, BLOCK), tl.arange(0, D)
    factor = rstd(x_ptr, row, C, eps, BLOCK)
    first = tl.load(x_ptr + row * C + c, mask=c < channels, other=0.0).to(tl.float32)
    weight = tl.load(gate_ptr + head * channels + c, mask=c < channels, other=0.0).to(tl.float32)
    gate = scale / (1.0 + tl.exp(-factor * tl.sum(first * weight, 0)))
    at = qkv_ptr + (row * (H + 2 * HKV) + H + HKV + head) * D + d
    value = tl.load(at).to(tl.float32)
    if NORM:
        value *= factor
    embedded = tl.load(table_ptr + (tl.load(token_ptr + row) * HKV + head) * D + d).to(tl.float32)
    tl.store(at, (value + gate * embedded).to(qkv_ptr.dtype.element_ty))


def embed(ids: Tensor, source: Tensor, drawn: Tensor, table: Tensor, squares: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The rows' tokens (B,) int64, and their normed embeddings (B, C), whose sums of squares go to `squares` (B,) fp32.

    A row's token is its entry of `ids` (B,) int32. Where `source` (B,) int32 is not negative, it is that entry of `drawn` int64: a
    token that the previous step has drawn and the host has not read yet. table (V, C).
    """
    rows, width = ids.numel(), table.size(1)
    tokens, out = torch.empty(rows, dtype=torch.int64, device=ids.device), table.new_empty(rows, width)
    strides = (ids.stride(0), source.stride(0))
    launched(_embed, (rows,))(ids, source, drawn, table, tokens, out, squares, width, *strides, eps, **_options(out))
    return tokens, out


def mix(x: Tensor, other: Tensor, own: Tensor | None, share: Tensor, squares: Tensor, *, sign: int = 1) -> None:
    """x = own * x + sign * share * other in place, for x and other (B, C) and scalars in fp32. Writes x's sums of squares (B,)."""
    launched(_mix, (x.size(0),))(x, other, own, share, squares, x.size(1), SIGN=sign, OWN=own is not None, **_options(x))


def smear(x: Tensor, before: Tensor, table: Tensor, gate: Tensor, amount: Tensor, squares: Tensor, eps: float) -> None:
    """`gpt.Smear` in place, for embeddings x (B, C). before (B,) int32 holds each row's previous token, -1 for none."""
    sizes = (x.size(1), before.stride(0), gate.numel())
    launched(_smear, (x.size(0),))(x, before, table, gate, amount, squares, *sizes, eps, **_options(x))


def relu_squared(u: Tensor, x: Tensor | None = None, eps: float = 0.0) -> Tensor:
    """relu^2 of u (B, N) in place; with x (B, C), of u divided by the RMS of x."""
    rows, size = u.shape
    width = 0 if x is None else x.size(1)
    options = {"NORM": x is not None, "WIDE": 1024, **_options(u if x is None else x)}
    launched(_relu2, (rows, triton.cdiv(size, 1024)))(u, u if x is None else x, width, size, eps, **options)
    return u


def add_value_embed(
    qkv: Tensor, x: Tensor, tokens: Tensor, table: Tensor, gate: Tensor, *, heads: int, scale: float, eps: float, norm: bool
) -> None:
    """Add the gated value embedding of each row's token to the values in qkv (B, H + 2 Hkv, D), as `attention.Attention` does.

    x (B, C) is the stream before the norm, table (V, Hkv * D), gate (Hkv, channels). With `norm`, the values are first divided by
    the RMS of x.
    """
    rows, both, width = qkv.shape
    kv_heads = (both - heads) // 2
    sizes = {"H": heads, "HKV": kv_heads, "D": width, "NORM": norm, **_options(x)}
    launched(_value_embed, (rows, kv_heads))(qkv, x, tokens, table, gate, x.size(1), gate.size(1), scale, eps, **sizes)


def _options(x: Tensor) -> dict[str, int]:
    return {"BLOCK": triton.next_power_of_2(x.size(1)), "num_warps": 4, **chained(x.device)}
