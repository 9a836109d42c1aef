"""Attention of one new token per row over keys and values that lie in blocks of a shared pool, for decoding.

Each row's positions are split among several programs, because a single row must keep a whole GPU busy (flash-decoding, Dao et al.
2023). A second kernel combines the parts. Nothing depends on the rows' lengths but the data, so a CUDA graph can hold it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

POSITIONS = 64  # read at a time by one program
SPLITS = 8  # programs per row and head


@triton.jit
def _parts(q_ptr, k_ptr, v_ptr, table_ptr, pos_ptr, out_ptr, lse_ptr, scale, window, width, H: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, SIZE: tl.constexpr, N: tl.constexpr, SPLIT: tl.constexpr):  # fmt: skip
    """One split of one row and head: the unnormalised output in fp32, its maximum and its sum as one log-sum-exp."""
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(pos_ptr + row) + 1
    first = tl.maximum(length - window, 0)
    share = tl.cdiv(length - first, SPLIT)
    begin = first + split * share
    end = tl.minimum(begin + share, length)
    d = tl.arange(0, D)
    q = tl.load(q_ptr + (row * H + head) * D + d).to(tl.float32) * scale
    largest, total, acc = -float("inf"), 0.0, tl.zeros((D,), tl.float32)
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        mask = at < end
        block = tl.load(table_ptr + row * width + at // SIZE, mask=mask, other=0).to(tl.int64)
        where = ((block * SIZE + at % SIZE) * HKV + head // (H // HKV)) * D
        k = tl.load(k_ptr + where[:, None] + d[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
        scores = tl.where(mask, tl.sum(k * q[None, :], 1), -float("inf"))
        new = tl.maximum(largest, tl.max(scores, 0))
        weights = tl.exp(scores - new)
        v = tl.load(v_ptr + where[:, None] + d[None, :], mask=mask[:, None], other=0.0).to(tl.float32)
        kept = tl.exp(largest - new)
        acc = acc * kept + tl.sum(v * weights[:, None], 0)
        total = total * kept + tl.sum(weights, 0)
        largest = new
    part = (row * H + head) * SPLIT + split
    some = begin < end  # a short row leaves the last splits empty
    tl.store(out_ptr + part * D + d, tl.where(some, acc / tl.where(some, total, 1.0), 0.0))
    tl.store(lse_ptr + part, tl.where(some, largest + tl.log(tl.where(some, total, 1.0)), -float("inf")))


@triton.jit
def _combine(part_ptr, lse_ptr, out_ptr, D: tl.constexpr, SPLIT: tl.constexpr):
    head, split, d = tl.program_id(0), tl.arange(0, SPLIT), tl.arange(0, D)
    lse = tl.load(lse_ptr + head * SPLIT + split)
    weights = tl.exp(lse - tl.max(lse, 0))
    parts = tl.load(part_ptr + (head * SPLIT + split)[:, None] * D + d[None, :])
    out = tl.sum(parts * weights[:, None], 0) / tl.sum(weights, 0)
    tl.store(out_ptr + head * D + d, out.to(out_ptr.dtype.element_ty))


def attend(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, pos: Tensor, scale: float, window: int | None) -> Tensor:
    """q (B, H, D) over the positions 0 to pos (B,) of each row, whose blocks are table (B, W); returns (B, H, D).

    keys and values (blocks, size, Hkv, D), contiguous, hold the new position as well. With a `window`, only that many last
    positions count. D is a power of two.
    """
    rows, heads, width = q.shape
    parts = torch.empty(rows, heads, SPLITS, width, dtype=torch.float32, device=q.device)
    lse = torch.empty(rows, heads, SPLITS, dtype=torch.float32, device=q.device)
    out = torch.empty_like(q)
    sizes = {"H": heads, "HKV": keys.size(2), "D": width, "SIZE": keys.size(1), "N": POSITIONS, "SPLIT": SPLITS}
    reach = table.size(1) * keys.size(1) if window is None else window
    _parts[(rows, heads, SPLITS)](q, keys, values, table, pos, parts, lse, scale, reach, table.size(1), **sizes)
    _combine[(rows * heads,)](parts, lse, out, D=width, SPLIT=SPLITS)
    return out
