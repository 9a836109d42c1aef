"""The draw of the next tokens from logits, for rows with any temperature and a top_k up to 64: two small kernels.

The first gives each part of the vocabulary to a program of its own, which finds the part's largest logit, its sum of exponentials, and
the logits that may be among the row's k largest, in the order of the vocabulary. The second draws from what remains, one program per
row. Both find the k-th largest value by bisection over its bits, which keeps that order. `sampler.sample` says what is drawn.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from nanochat.kernels.inference.dependent import chained, wait
from nanochat.kernels.launch import launched

PART = 1024  # logits per program of the first kernel
MAX_TOP_K = 64


@triton.jit
def _ordered(x):
    """Floats as integers of the same order."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _kth_largest(keys, k):
    """A bound that the k largest of `keys` reach, and no others but those that tie with the k-th."""
    low, high = tl.min(keys, 0).to(tl.int64), tl.max(keys, 0).to(tl.int64)
    while low < high:
        middle = low + (high - low + 1) // 2
        count = tl.sum((keys >= middle).to(tl.int32), 0)
        low = tl.where(count >= k, middle, low)
        high = tl.where(
            count > k, high, tl.where(count == k, middle, middle - 1)
        )  # with exactly k, all smaller bounds are as good
    return low


@triton.jit
def _parts(logits_ptr, numbers_ptr, top_k_ptr, max_ptr, sum_ptr, value_ptr, id_ptr, V, cap, top_k_stride, PART: tl.constexpr, KEEP: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    part, row, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(0)
    inverse_temperature = tl.load(numbers_ptr + row * 2)
    top_k = tl.load(top_k_ptr + row.to(tl.int64) * top_k_stride)
    wait(CHAINED)
    ids = part * PART + tl.arange(0, PART)
    at = logits_ptr + row.to(tl.int64) * V + ids
    x = tl.load(at, mask=ids < V, other=0.0)
    x = cap * (1.0 - 2.0 / (1.0 + tl.exp(2.0 * x / cap)))  # cap * tanh(x / cap)
    tl.store(at, x, mask=ids < V)
    x = tl.where(ids < V, x, -float("inf"))
    largest = tl.max(x, 0)
    tl.store(max_ptr + row * parts + part, largest)
    tl.store(sum_ptr + row * parts + part, tl.sum(tl.exp((x - largest) * inverse_temperature), 0))
    if (top_k > 0) & (inverse_temperature > 0):
        keys = _ordered(x)
        chosen = keys >= _kth_largest(keys, tl.minimum(top_k, KEEP))
        place = tl.cumsum(chosen.to(tl.int32), 0) - 1
        kept = (row * parts + part) * KEEP
        slot = tl.arange(0, KEEP)
        tl.store(value_ptr + kept + slot, tl.full((KEEP,), -float("inf"), tl.float32))
        tl.debug_barrier()
        tl.store(value_ptr + kept + place, x, mask=chosen & (place < KEEP))
        tl.store(id_ptr + kept + place, ids, mask=chosen & (place < KEEP))


@triton.jit
def _first_above(probs, point, slots, size):
    """The first slot at which the running sum of `probs` exceeds `point`; the last one with a probability if rounding hides it."""
    bounds = tl.cumsum(probs, 0)
    above = tl.min(tl.where(bounds > point, slots, size), 0)
    return tl.minimum(above, tl.max(tl.where(probs > 0, slots, 0), 0))


@triton.jit
def _draw(logits_ptr, numbers_ptr, top_k_ptr, max_ptr, sum_ptr, value_ptr, id_ptr, token_ptr, V, parts, top_k_stride, PART: tl.constexpr, PARTS: tl.constexpr, KEEP: tl.constexpr, CHAINED: tl.constexpr):  # fmt: skip
    row = tl.program_id(0)
    inverse_temperature, u = tl.load(numbers_ptr + row * 2), tl.load(numbers_ptr + row * 2 + 1)
    top_k = tl.load(top_k_ptr + row.to(tl.int64) * top_k_stride)
    wait(CHAINED)
    p = tl.arange(0, PARTS)
    maxima = tl.load(max_ptr + row * parts + p, mask=p < parts, other=-float("inf"))
    largest = tl.max(maxima, 0)
    i = tl.arange(0, PART)
    logits = logits_ptr + row.to(tl.int64) * V
    if inverse_temperature == 0:
        best = tl.min(tl.where(maxima == largest, p, PARTS), 0)
        ids = best * PART + i
        x = tl.load(logits + ids, mask=ids < V, other=-float("inf"))
        token = tl.min(tl.where(x == largest, ids, V), 0)
    elif top_k > 0:
        slot = tl.arange(0, PARTS * KEEP)
        kept = tl.load(value_ptr + row * parts * KEEP + slot, mask=slot < parts * KEEP, other=-float("inf"))
        keys = _ordered(kept)
        shares = tl.where(keys >= _kth_largest(keys, top_k), tl.exp((kept - largest) * inverse_temperature), 0.0)
        chosen = _first_above(shares, u * tl.sum(shares, 0), slot, PARTS * KEEP)
        token = tl.load(id_ptr + row * parts * KEEP + chosen)
    else:
        sums = tl.load(sum_ptr + row * parts + p, mask=p < parts, other=0.0)
        sums = tl.where(p < parts, sums * tl.exp((maxima - largest) * inverse_temperature), 0.0)
        point = u * tl.sum(sums, 0)
        part = _first_above(sums, point, p, PARTS)
        before = tl.sum(tl.where(p < part, sums, 0.0), 0)
        ids = part * PART + i
        x = tl.load(logits + ids, mask=ids < V, other=-float("inf"))
        probs = tl.exp((x - largest) * inverse_temperature)
        token = part * PART + _first_above(probs, point - before, i, PART)
    tl.store(token_ptr + row, token.to(tl.int64))


class Workspace:
    """What the first kernel finds for the second, for up to `rows` rows. One per stream."""

    def __init__(self, rows: int, vocabulary: int, device: torch.device):
        parts = triton.cdiv(vocabulary, PART)
        self.maxima, self.sums = torch.empty(2, rows, parts, dtype=torch.float32, device=device)
        self.values = torch.empty(rows, parts, MAX_TOP_K, dtype=torch.float32, device=device)
        self.ids = torch.empty(rows, parts, MAX_TOP_K, dtype=torch.int32, device=device)


def draw(logits: Tensor, cap: float, numbers: Tensor, top_k: Tensor, out: Tensor, workspace: Workspace) -> Tensor:
    """The next token of each row, (B,) int64 in `out`, which is returned. The logits are soft-capped at `cap` in place first.

    logits (B, V) fp32. numbers (B, 2) fp32: 1 / temperature, 0 for a greedy row, and the random number in [0, 1). top_k (B,) int32, 0
    for off, at most 64; of logits that tie with the k-th, all stay in.
    """
    rows, vocabulary = logits.shape
    parts = triton.cdiv(vocabulary, PART)
    shared = (logits, numbers, top_k, workspace.maxima, workspace.sums, workspace.values, workspace.ids)
    sizes = {"PART": PART, "KEEP": MAX_TOP_K, **chained(logits.device)}
    launched(_parts, (parts, rows))(*shared, vocabulary, cap, top_k.stride(0), **sizes, num_warps=1)
    width = triton.next_power_of_2(parts)
    launched(_draw, (rows,))(*shared, out, vocabulary, parts, top_k.stride(0), PARTS=width, **sizes, num_warps=4)
    return out
