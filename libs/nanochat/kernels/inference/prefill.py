"""Attention of many new tokens of several rows over keys and values in blocks of a shared pool, for reading prompts.

The new tokens of all rows lie one after another. `place` rotates and norms queries and keys and stores keys and values in the pool;
`attend` is flash attention (Dao 2023) over the pool, in which one program has up to `QUERIES` tokens of one row and one head.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.launch import descriptor, launched

QUERIES, POSITIONS = 64, 64
HOW = {"num_warps": 4, "num_stages": 2}
ROWS = 16  # heads of tokens that a program of `place` has
LOG2E = 1.4426950408889634


@triton.jit
def _place(qkv_ptr, cos_ptr, sin_ptr, row_ptr, pos_ptr, table_ptr, q_ptr, k_ptr, v_ptr, rows, table_stride, block_stride, slot_stride, head_stride, eps, H: tl.constexpr, HKV: tl.constexpr, HALF: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    index = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    token, head = index // (H + 2 * HKV), index % (H + 2 * HKV)
    inside, c = index < rows, tl.arange(0, HALF)[None, :]
    pos = tl.load(pos_ptr + token, mask=inside, other=0)
    row = tl.load(row_ptr + token, mask=inside, other=0).to(tl.int64)
    block = tl.load(table_ptr + row * table_stride + pos // SIZE, mask=inside, other=0).to(tl.int64)
    at = index[:, None] * (2 * HALF) + c
    a = tl.load(qkv_ptr + at, mask=inside[:, None], other=0.0).to(tl.float32)
    b = tl.load(qkv_ptr + at + HALF, mask=inside[:, None], other=0.0).to(tl.float32)
    turned = inside & (head < H + HKV)  # values stay as they are
    angle = pos[:, None] * HALF + c
    cos = tl.load(cos_ptr + angle, mask=turned[:, None], other=1.0)
    sin = tl.load(sin_ptr + angle, mask=turned[:, None], other=0.0)
    rstd = tl.where(turned, tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + eps), 1.0)[:, None]
    left = ((a * cos + b * sin) * rstd).to(q_ptr.dtype.element_ty)
    right = ((b * cos - a * sin) * rstd).to(q_ptr.dtype.element_ty)
    query = q_ptr + (token * H + head)[:, None] * (2 * HALF) + c
    is_q, is_k, is_v = (inside & (head < H))[:, None], (turned & (head >= H))[:, None], (inside & (head >= H + HKV))[:, None]
    tl.store(query, left, mask=is_q)
    tl.store(query + HALF, right, mask=is_q)
    here = (block * block_stride + (pos % SIZE) * slot_stride + (head - H) % HKV * head_stride)[:, None] + c
    tl.store(k_ptr + here, left.to(k_ptr.dtype.element_ty), mask=is_k)
    tl.store(k_ptr + here + HALF, right.to(k_ptr.dtype.element_ty), mask=is_k)
    tl.store(v_ptr + here, left.to(v_ptr.dtype.element_ty), mask=is_v)
    tl.store(v_ptr + here + HALF, right.to(v_ptr.dtype.element_ty), mask=is_v)


@triton.jit
def _tile(q, keys, values, table, tile, n, pos, window, kv_head, scale, largest, total, acc, HKV: tl.constexpr, SIZE: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The online softmax of queries q (M, D) at `pos` (M,) after one more tile of keys, which lies in one block.

    Positions after the row's end are not masked when they are loaded: what the pool holds there is finite, and no query sees it.
    """
    where = (tl.load(table + tile // SIZE) * HKV + kv_head) * SIZE + tile % SIZE
    k = keys.load([where, 0]).to(q.dtype)
    scores = tl.dot(q, k.T, input_precision=PRECISION) * scale
    if MASKED:
        keys_at = tile + n
        seen = (keys_at[None, :] <= pos[:, None]) & (keys_at[None, :] > pos[:, None] - window)
        scores = tl.where(seen, scores, -float("inf"))
    new = tl.maximum(largest, tl.max(scores, 1))
    base = tl.where(new == -float("inf"), 0.0, new) if MASKED else new  # a tile may lie before the window of its first queries
    weights = tl.exp2(scores - base[:, None])
    kept = tl.exp2(largest - base)
    v = values.load([where, 0]).to(q.dtype)
    acc = tl.dot(weights.to(v.dtype), v, acc * kept[:, None], input_precision=PRECISION)
    return new, total * kept + tl.sum(weights, 1), acc


@triton.jit
def _attend(q_ptr, keys, values, pieces_ptr, pos_ptr, table_ptr, out_ptr, scale, window, table_stride, H: tl.constexpr, HKV: tl.constexpr, D: tl.constexpr, SIZE: tl.constexpr, M: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    head, piece = tl.program_id(0), tl.program_id(1)
    table = table_ptr + tl.load(pieces_ptr + piece * 3).to(tl.int64) * table_stride
    begin = tl.load(pieces_ptr + piece * 3 + 1)
    count = tl.load(pieces_ptr + piece * 3 + 2)
    if count > 0:
        m, n, d = tl.arange(0, M), tl.arange(0, N), tl.arange(0, D)
        pos = tl.load(pos_ptr + begin) + m  # a piece's positions follow each other
        at = ((begin + m).to(tl.int64) * H + head)[:, None] * D + d[None, :]
        q = tl.load(q_ptr + at, mask=(m < count)[:, None], other=0.0)
        start = tl.load(pos_ptr + begin)
        last = start + count
        first = tl.maximum(start + 1 - window, 0) // N * N
        whole = tl.maximum((start + 1) // N * N, first)  # before it every query sees every key, if there is no window
        whole = tl.where(window < last, first, whole)
        largest = tl.full((M,), -float("inf"), tl.float32)
        total, acc = tl.zeros((M,), tl.float32), tl.zeros((M, D), tl.float32)
        kv_head = head // (H // HKV)
        for tile in range(first, whole, N):
            largest, total, acc = _tile(q, keys, values, table, tile, n, pos, window, kv_head, scale, largest, total, acc, HKV, SIZE, False, PRECISION)  # fmt: skip
        for tile in range(whole, last, N):
            largest, total, acc = _tile(q, keys, values, table, tile, n, pos, window, kv_head, scale, largest, total, acc, HKV, SIZE, True, PRECISION)  # fmt: skip
        tl.store(out_ptr + at, (acc / total[:, None]).to(out_ptr.dtype.element_ty), mask=(m < count)[:, None])


def place(
    qkv: Tensor, rotary: tuple[Tensor, Tensor], rows: Tensor, pos: Tensor, table: Tensor, keys: Tensor, values: Tensor, *, heads: int, eps: float
) -> Tensor:  # fmt: skip
    """Store the keys and values of qkv (T, H + 2 Hkv, D) in the pool. Returns the queries, rotated and normed, (T, H, D).

    rotary: tables of cos and sin (length, D/2). rows and pos (T,) int32: each token's row of table (R, W), and its position. keys and
    values (blocks, size, Hkv, D), with any strides but the last.
    """
    tokens, both, width = qkv.shape
    q = qkv.new_empty(tokens, heads, width)
    sizes = {"H": heads, "HKV": keys.size(2), "HALF": width // 2, "SIZE": keys.size(1), "ROWS": ROWS}
    strides, rows_of = (table.stride(0), *keys.stride()[:3]), tokens * both
    grid = (triton.cdiv(rows_of, ROWS),)
    launched(_place, grid)(qkv, *rotary, rows, pos, table, q, keys, values, rows_of, *strides, eps, **sizes, num_warps=4)
    return q


def attend(q: Tensor, keys: Tensor, values: Tensor, pieces: Tensor, pos: Tensor, table: Tensor, *, scale: float, window: int | None) -> Tensor:  # fmt: skip
    """Causal attention of q (T, H, D) over the pool; a token sees the positions of its row up to its own, (T, H, D).

    keys and values (blocks, size, Hkv, D) are views of (blocks, Hkv, size, D), contiguous. pieces (P, 3) int32 divide the tokens: row of `table`, first token, number of tokens, at most QUERIES and 0 for no piece. Tokens in
    no piece are left undefined. Otherwise as `place`.
    """
    heads, width = q.shape[1:]
    out = torch.empty_like(q)
    sizes = {"H": heads, "HKV": keys.size(2), "D": width, "SIZE": keys.size(1), "M": QUERIES, "N": POSITIONS}
    precision = "ieee" if q.dtype is torch.float32 else "tf32"
    reach = 1 << 29 if window is None else window
    descriptors = (descriptor(t.transpose(1, 2).view(-1, width), [POSITIONS, width]) for t in (keys, values))
    launched(_attend, (heads, pieces.size(0)))(
        q, *descriptors, pieces, pos, table, out, scale * LOG2E, reach, table.stride(0), **sizes, PRECISION=precision, **HOW
    )  # fmt: skip
    return out
