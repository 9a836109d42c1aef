"""Soft cap, cross entropy and their gradient over rows of logits, in place.

Two passes over a row of V bf16 logits: the second, which overwrites it with the gradient, finds it in the L2 cache (128 KiB
a row at V = 65,536), if few rows are under way: so a program is wide. The capped logits lie within (-15, 15), so no maximum
need be taken away before the exponential.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARP_COLUMNS = 256  # of one step over the row: 16 bytes a thread and load


def warps(columns: int) -> int:
    """Of a program. On an H100 16,384 rows of 65,536 columns took 2.15, 1.94 and 1.74 ms with 8, 16 and 32, and as many logits
    in rows of 32,768 columns 1.96, 1.64 and 1.78; without the hints what to keep in L2 2.17, 2.15, 1.90 and 2.16, 1.99, 1.75."""
    return next((count for count in (8, 16) if columns <= 2048 * count), 32)


@triton.jit
def _tanh(x, APPROX: tl.constexpr):
    if APPROX:  # one instruction, relative error 2^-11: below the rounding of the bf16 logits it is given
        return tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    return 2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0


@triton.jit
def _loss_and_grad(z_ptr, target_ptr, scale_ptr, loss_ptr, V, cap, BLOCK: tl.constexpr, APPROX: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(target_ptr + row)
    z_ptr += row * V
    if target < 0:
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            tl.store(z_ptr + at, tl.zeros([BLOCK], tl.bfloat16), mask=at < V)
        tl.store(loss_ptr + row, 0.0)
    else:
        # Read now: the barrier of the sum below keeps every thread's read ahead of the second pass, which overwrites it.
        own = _tanh(tl.load(z_ptr + target + tl.arange(0, 1)).to(tl.float32) / cap, APPROX) * cap
        partial = tl.zeros([BLOCK], tl.float32)
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            z = tl.load(z_ptr + at, mask=at < V, other=0.0, eviction_policy="evict_last").to(tl.float32)
            partial += tl.where(at < V, tl.exp(_tanh(z / cap, APPROX) * cap), 0.0)
        total = tl.sum(partial, 0)
        tl.store(loss_ptr + row + tl.arange(0, 1), tl.log(total) - own)
        weight = tl.load(scale_ptr)
        weight_over_total = weight / total
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            z = tl.load(z_ptr + at, mask=at < V, other=0.0, eviction_policy="evict_first").to(tl.float32)
            c = _tanh(z / cap, APPROX)
            grad = tl.exp(c * cap) * weight_over_total - tl.where(at == target, weight, 0.0)
            tl.store(z_ptr + at, (grad * (1.0 - c * c)).to(tl.bfloat16), mask=at < V, eviction_policy="evict_first")


def loss_and_grad_(logits: Tensor, targets: Tensor, scale: Tensor, cap: float, *, approximate: bool = True) -> Tensor:
    """The fp32 losses (N,) in nats of raw `logits` (N, V) bf16 under the soft cap; 0 where the target (N,) is negative.

    Overwrites `logits` with `scale` (0-D fp32) times the gradient of the losses' sum by them.
    """
    rows, columns = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    wide = warps(columns)
    sizes = {"BLOCK": WARP_COLUMNS * wide, "num_warps": wide}
    _loss_and_grad[(rows,)](logits, targets, scale, losses, columns, cap, APPROX=approximate, **sizes)
    return losses
