"""Attention of one new token per row over keys and values in blocks of a shared pool, with all that decoding does around it.

Each row's positions are split among several programs, because a single row must keep a whole GPU busy (flash-decoding, Dao et al.
2023). Every program rotates and norms its head's query itself. The one that comes to the new position does so with the key, stores
key and value in the pool, and the last to finish a head combines the parts. Nothing depends on the rows' lengths but the data, so a
CUDA graph can hold it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.inference.dependent import chained, wait
from nanochat.kernels.inference.residual import rstd
from nanochat.kernels.launch import launched

LOG2E = 1.4426950408889634


@triton.jit
def _rotated(ptr, cos, sin, d, eps, HALF: tl.constexpr):
    """The norm of one head at `ptr`, rotated by its position: see `attention.rotate`, whose sign this is."""
    x = tl.load(ptr + d).to(tl.float32)
    partner = tl.load(ptr + (d + HALF) % (2 * HALF)).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, 0) / (2 * HALF) + eps)
    return (x * cos + tl.where(d < HALF, partner, -partner) * sin) * rstd


@triton.jit
def _scores(keys, q, mask):
    return tl.where(mask, tl.sum(keys.to(tl.float32) * q[None, :], 1), -float("inf"))


@triton.jit
def _attend(qkv_ptr, x_ptr, cos_ptr, sin_ptr, k_ptr, v_ptr, table_ptr, pos_ptr, out_ptr, part_ptr, lse_ptr, count_ptr, scale, window, table_stride, pos_stride, block_stride, slot_stride, head_stride, C, eps, NORM: tl.constexpr, BLOCK: tl.constexpr, H: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, SIZE: tl.constexpr, N: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    group: tl.constexpr = H // HKV
    d, n = tl.arange(0, D), tl.arange(0, N)
    kv_head = head // group
    pos = tl.load(pos_ptr + row.to(tl.int64) * pos_stride)
    earliest = tl.maximum(pos + 1 - window, 0)
    first = earliest // N * N  # a tile lies in one block
    share = tl.cdiv(tl.cdiv(pos + 1 - first, SPLIT), N) * N
    begin = first + split * share
    end = tl.minimum(begin + share, pos + 1)
    stop = tl.minimum(end, pos)  # the new position is not in the pool yet
    table = table_ptr + row.to(tl.int64) * table_stride
    inner = n[:, None] * slot_stride + kv_head * head_stride + d[None, :]
    # What the pool holds is older than this step: the first keys and values are on their way before the query is there.
    mask = ((begin + n) < stop) & ((begin + n) >= earliest)
    block = tl.load(table + begin // SIZE, mask=begin < stop, other=0).to(tl.int64)
    where = block * block_stride + begin % SIZE * slot_stride + inner
    keys = tl.load(k_ptr + where, mask=mask[:, None], other=0.0)
    values = tl.load(v_ptr + where, mask=mask[:, None], other=0.0)
    wait(CHAINED)

    half: tl.constexpr = D // 2
    cos = tl.load(cos_ptr + pos.to(tl.int64) * half + d % half)
    sin = tl.load(sin_ptr + pos.to(tl.int64) * half + d % half)
    qkv = qkv_ptr + row.to(tl.int64) * (H + 2 * HKV) * D
    q = _rotated(qkv + head * D, cos, sin, d, eps, half) * scale
    # Each place in the tile has a softmax of its own until the end, so that no thread waits for another one in the loop.
    highest = _scores(keys, q, mask)
    sums = tl.where(mask, 1.0, 0.0)
    accs = values.to(tl.float32)
    for start in tl.range(begin + N, stop, N, num_stages=STAGES):
        mask = (start + n) < stop
        where = tl.load(table + start // SIZE).to(tl.int64) * block_stride + start % SIZE * slot_stride + inner
        keys = tl.load(k_ptr + where, mask=mask[:, None], other=0.0)
        values = tl.load(v_ptr + where, mask=mask[:, None], other=0.0)
        scores = _scores(keys, q, mask)
        new = tl.maximum(highest, scores)
        base = tl.where(new == -float("inf"), 0.0, new)
        weights, kept = tl.exp2(scores - base), tl.exp2(highest - base)
        accs = accs * kept[:, None] + values.to(tl.float32) * weights[:, None]
        sums = sums * kept + weights
        highest = new
    largest = tl.max(highest, 0)
    shares = tl.exp2(highest - tl.where(largest == -float("inf"), 0.0, largest))
    acc = tl.sum(accs * shares[:, None], 0)
    total = tl.sum(sums * shares, 0)
    if (begin <= pos) & (pos < end):
        key = _rotated(qkv + (H + kv_head) * D, cos, sin, d, eps, half).to(k_ptr.dtype.element_ty)
        value = tl.load(qkv + (H + HKV + kv_head) * D + d).to(tl.float32)
        if NORM:
            value *= rstd(x_ptr, row, C, eps, BLOCK)
        value = value.to(v_ptr.dtype.element_ty)
        here = tl.load(table + pos // SIZE).to(tl.int64) * block_stride + (pos % SIZE) * slot_stride + kv_head * head_stride + d
        if head % group == 0:
            tl.store(k_ptr + here, key)
            tl.store(v_ptr + here, value)
        score = tl.sum(key.to(tl.float32) * q, 0)
        new = tl.maximum(largest, score)
        weight = tl.exp2(score - new)
        kept = tl.exp2(largest - new)
        acc = acc * kept + value.to(tl.float32) * weight
        total = total * kept + weight
        largest = new
    out = out_ptr + (row.to(tl.int64) * H + head) * D + d
    if SPLIT == 1:
        tl.store(out, (acc / total).to(out_ptr.dtype.element_ty))
    else:
        some = begin <= pos  # a short row leaves the last splits empty
        place = (row * H + head) * SPLIT
        tl.store(part_ptr + (place + split) * D + d, tl.where(some, acc / tl.where(some, total, 1.0), 0.0))
        tl.store(lse_ptr + place + split, tl.where(some, largest + tl.log2(tl.where(some, total, 1.0)), -float("inf")))
        tl.debug_barrier()  # all threads have stored before one of them says so
        if tl.atomic_add(count_ptr + row * H + head, 1, sem="acq_rel") == SPLIT - 1:
            s = tl.arange(0, SPLIT)
            lse = tl.load(lse_ptr + place + s, cache_modifier=".cg")
            of_all = tl.exp2(lse - tl.max(lse, 0))
            parts = tl.load(part_ptr + (place + s)[:, None] * D + d[None, :], cache_modifier=".cg")
            combined = tl.sum(parts * of_all[:, None], 0) / tl.sum(of_all, 0)
            tl.store(out, combined.to(out_ptr.dtype.element_ty))
            tl.store(count_ptr + row * H + head, 0)


TILE = 64  # most positions that a program reads at a time
# Programs per row and head -> most programs in all. There are only four cases, because each is compiled for itself. On an H200, 128 rows
# of 576 positions take 97 us (the memory needs 90), 32 rows 29 (22), and 8 rows 11; with four programs per head, 32 rows take 32.
SPLITS = {16: 320, 8: 1280, 2: 1280}


def splits(rows: int, heads: int) -> int:
    """Programs per row and head: as many as keep the GPU busy."""
    return next((split for split, most in SPLITS.items() if split * rows * heads <= most), 1)


class Workspace:
    """What the programs of one head leave for each other: their parts, and a counter. One per stream."""

    def __init__(self, rows: int, heads: int, width: int, device: torch.device):
        shape = (rows, heads, splits(rows, heads))
        self.parts = torch.empty(*shape, width, dtype=torch.float32, device=device)
        self.lse = torch.empty(shape, dtype=torch.float32, device=device)
        self.counts = torch.zeros(rows, heads, dtype=torch.int32, device=device)


def attend(
    qkv: Tensor,
    x: Tensor | None,
    rotary: tuple[Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    table: Tensor,
    pos: Tensor,
    workspace: Workspace,
    *,
    heads: int,
    scale: float,
    window: int | None,
    eps: float,
) -> Tensor:
    """Attention of each row's new token over its positions 0 to `pos` (B,) int32; returns (B, H, D).

    qkv (B, H + 2 Hkv, D) holds a row's query, key and value heads, neither rotated nor normed. With x (B, C), the new values are
    first divided by the RMS of x. rotary: tables of cos and sin (length, D/2). keys and values are (blocks, size, Hkv, D) with any
    strides but the last; the new key and value are stored there; `size` is a multiple of TILE. table (B, W) int32 holds each row's blocks. With a `window`, only
    that many last positions count. D is a power of two.
    """
    rows, both, width = qkv.shape
    kv_heads = (both - heads) // 2
    out = qkv.new_empty(rows, heads, width)
    split = workspace.parts.size(2)
    # Microseconds on an H200. One row of 576 positions: 5.7, and 5.9 with tiles of 32. With two warps it would be 5.5, but the kernel
    # would compile several times as long. 8 rows: 25.7 with tiles of 64. 128 rows: 105 with tiles of 32, 99 with two stages.
    few = {"N": TILE, "STAGES": 1, "num_warps": 4}
    how = few if split == max(SPLITS) else {"N": 16, "STAGES": 3, "num_warps": 2}
    sizes = {"H": heads, "HKV": kv_heads, "D": width, "SIZE": keys.size(1), "SPLIT": split, **how}
    strides = (table.stride(0), pos.stride(0), *keys.stride()[:3])
    channels = 1 if x is None else x.size(1)
    norm = {"NORM": x is not None, "BLOCK": triton.next_power_of_2(channels)}
    reach = 1 << 30 if window is None else window
    launched(_attend, (rows, heads, split))(
        qkv, qkv if x is None else x, *rotary, keys, values, table, pos, out, workspace.parts, workspace.lse, workspace.counts,
        scale * LOG2E, reach, *strides, channels, eps, **norm, **sizes, **chained(qkv.device),
    )  # fmt: skip
    return out
