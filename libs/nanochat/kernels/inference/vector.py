"""Matrix times vector, for decoding a single row, with what surrounds it in the model fused in.

Such a product is bound by reading the matrix. A program holds all of its weights in registers and loads them before it waits for the
previous kernel, so that the memory is never idle between two products. The RMS norm before a product is a factor, so it is applied to
the result; whoever wrote x has left the sums of squares of its tiles. Short results are split along K among several programs; the last
one to finish adds up the parts in a fixed order, so a result never depends on timing.

Microseconds on an H100, in a chain of 20 matrices (cuBLAS; reading the matrix alone at 2.96 TB/s): 3840 x 1280 5.1 (6.6; 3.3),
1280 x 1280 2.8 (5.2; 1.1), 5120 x 1280 6.2 (7.8; 4.4), 1280 x 5120 6.9 (10.1; 4.4), 65536 x 1280 61 (65; 57).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.inference.dependent import chained, wait
from nanochat.kernels.inference.int8 import Int8
from nanochat.kernels.launch import launched

COLUMNS = 256  # of the matrix, read at a time
ROWS = 8  # of the matrix, per program
MAX_CHUNKS = 8  # of COLUMNS, held by one program: more would not fit into its registers
MAX_TILES = 4096
LEAST_TILES = 256  # whose squares are read: fewer would be another kernel to compile


@triton.jit(do_not_specialize=["in_tiles"])
def _vector(x_ptr, w_ptr, step_ptr, out_ptr, in_squares_ptr, out_squares_ptr, part_ptr, count_ptr, N, K, share, in_tiles, eps, NORM: tl.constexpr, RELU2: tl.constexpr, ADD: tl.constexpr, INT8: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, CHUNKS: tl.constexpr, SPLIT: tl.constexpr, TILES: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    tile, split = tl.program_id(0), tl.program_id(1)
    n, k = tile * BN + tl.arange(0, BN), tl.arange(0, BK)
    begin = split * share
    end = tl.minimum(begin + share, K)
    rows = w_ptr + tl.minimum(n, N - 1).to(tl.int64)[:, None] * K
    held = ()
    for chunk in tl.static_range(CHUNKS):
        at = begin + chunk * BK + k
        held = held + (tl.load(rows + at[None, :], mask=(at < end)[None, :], other=0.0),)  # type: ignore[assignment]  # noqa: RUF005
    wait(CHAINED)
    sums = tl.zeros((BN, BK), tl.float32)
    for chunk in tl.static_range(CHUNKS):
        at = begin + chunk * BK + k
        x = tl.load(x_ptr + at, mask=at < end, other=0.0).to(tl.float32)
        sums += _float(held[chunk], INT8) * x[None, :]
    acc = tl.sum(sums, 1)
    if INT8:
        acc *= tl.load(step_ptr + tl.minimum(n, N - 1))
    if NORM:
        t = tl.arange(0, TILES)
        acc *= tl.rsqrt(tl.sum(tl.load(in_squares_ptr + t, mask=t < in_tiles, other=0.0), 0) / K + eps)
    if RELU2:
        acc = tl.maximum(acc, 0.0)
        acc *= acc
    if SPLIT == 1:
        _finish(acc, out_ptr, out_squares_ptr, n, n < N, tile, ADD)
    else:
        inner = tl.arange(0, BN)
        tl.store(part_ptr + (tile * SPLIT + split) * BN + inner, acc)
        tl.debug_barrier()  # all threads have stored before one of them says so
        if tl.atomic_add(count_ptr + tile, 1, sem="acq_rel") == SPLIT - 1:
            s = tl.arange(0, SPLIT)
            total = tl.sum(tl.load(part_ptr + (tile * SPLIT + s)[:, None] * BN + inner[None, :], cache_modifier=".cg"), 0)
            _finish(total, out_ptr, out_squares_ptr, n, n < N, tile, ADD)
            tl.store(count_ptr + tile, 0)


@triton.jit
def _float(weight, INT8: tl.constexpr):
    """A level + 128 in the lowest bits of 2^23 is the float 2^23 + level + 128. Converting integers takes several times as long."""
    if INT8:
        return (weight.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True) - 8388736.0
    return weight.to(tl.float32)


@triton.jit
def _finish(acc, out_ptr, squares_ptr, n, mask, tile, ADD: tl.constexpr):
    if ADD:
        acc += tl.load(out_ptr + n, mask=mask, other=0.0).to(tl.float32)
    y = acc.to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + n, y, mask=mask)
    if ADD:
        wide = tl.where(mask, y.to(tl.float32), 0.0)
        tl.store(squares_ptr + tile, tl.sum(wide * wide, 0))


@dataclass(slots=True)
class Stream:
    """The residual stream of one row: x (C,), and the sums of squares of its tiles, of which the first `tiles` are in use."""

    x: Tensor
    squares: Tensor
    tiles: int = 0


class Workspace:
    """What programs that share a product along K leave for each other. One per stream."""

    def __init__(self, device: torch.device):
        self.parts = torch.empty(MAX_TILES * ROWS, dtype=torch.float32, device=device)
        self.counts = torch.zeros(MAX_TILES, dtype=torch.int32, device=device)


def product(
    x: Tensor,
    w: Tensor | Int8,
    out: Tensor,
    workspace: Workspace,
    *,
    normed: Stream | None = None,
    relu2: bool = False,
    onto: Stream | None = None,
    eps: float = 0.0,
) -> Tensor:
    """out (N,) = w (N, K) x (K,), all contiguous; returns out.

    `normed`: x is that stream, which is RMS-normed first. `relu2`: relu^2 is applied to the result. `onto`: out is that stream, the
    product is added to it, and its squares are written anew; only such a product is split along K.
    """
    levels, steps = (w.levels, w.steps) if isinstance(w, Int8) else (w, workspace.parts)
    columns, inner = levels.shape
    split = 1
    while onto is not None and triton.cdiv(inner, split * COLUMNS) > MAX_CHUNKS:
        split *= 2
    share = triton.cdiv(triton.cdiv(inner, split), COLUMNS) * COLUMNS
    tiles = triton.cdiv(columns, ROWS)
    launched(_vector, (tiles, split))(
        x, levels, steps, out, normed.squares if normed else workspace.parts, onto.squares if onto else workspace.parts, workspace.parts,
        workspace.counts, columns, inner, share, normed.tiles if normed else 0, eps, NORM=normed is not None, RELU2=relu2,
        ADD=onto is not None, INT8=isinstance(w, Int8), BN=ROWS, BK=COLUMNS, CHUNKS=triton.cdiv(share, COLUMNS), SPLIT=split,
        TILES=max(LEAST_TILES, triton.next_power_of_2(normed.tiles)) if normed else 1, num_warps=4, **chained(x.device),
    )  # fmt: skip
    if onto:
        onto.tiles = tiles
    return out
