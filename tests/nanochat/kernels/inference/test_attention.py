"""Attention over blocks equals rotated, normed and causal attention over the same keys and values. On a GPU if there is one, otherwise
in Triton's interpreter."""

import math

import pytest
import torch
import torch.nn.functional as F

from nanochat.kernels.inference import attention, prefill
from nanochat.model.attention import rotate
from nanochat.model.layers import EPS, norm

SIZE, WIDTH = 64, 32
SHAPES = [(2, 2), (4, 2)]
WINDOWS = [None, 5, 100]


class Pool:
    """Random keys and values in 24 blocks, rotary tables for 200 positions, and distinct blocks for each of `rows` rows."""

    def __init__(self, rows: int, kv_heads: int, device: str, fp8: bool = False):
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        if fp8 and device == "cpu":
            pytest.skip("Triton's interpreter loses the carry when it rounds to fp8: 1.97 becomes 1 and not 2")
        self.kept = torch.float8_e4m3fn if fp8 else self.dtype
        shape = (24, kv_heads, SIZE, WIDTH)
        self.keys, self.values = (torch.randn(shape, device=device).to(self.kept).transpose(1, 2) for _ in range(2))
        angles = torch.randn(200, WIDTH // 2, device=device)
        self.rotary = angles.cos(), angles.sin()
        self.table = torch.randperm(24, device=device)[: rows * 3].view(rows, 3).int()

    def held(self, row: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        blocks = self.table[row, : -(-length // SIZE)].long()
        wide = self.keys.to(self.dtype), self.values.to(self.dtype)
        return wide[0][blocks].flatten(0, 1)[:length], wide[1][blocks].flatten(0, 1)[:length]

    def turned(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """x (T, H, D) rotated from position `first` on, and normed."""
        rotary = tuple(table[None, first : first + x.size(0), None] for table in self.rotary)
        return norm(rotate(x[None].float(), rotary))[0]


def expected(q, keys, values, first, window):
    """q (T, H, D) at the positions from `first` on, over keys and values (L, Hkv, D)."""
    at, seen = torch.arange(first, first + q.size(0), device=q.device)[:, None], torch.arange(len(keys), device=q.device)
    mask = (seen <= at) & (seen > at - (window or 1000))
    q, k, v = (t.transpose(0, 1)[None].float() for t in (q, keys, values))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


def close(found, wanted, dtype):
    """fp8 has three bits of mantissa: rounding errors of a sixteenth, and of twice that where a value lies between two of them."""
    atol, rtol = {torch.float8_e4m3fn: (5e-2, 0.13), torch.bfloat16: (2e-2, 1e-2), torch.float32: (1e-5, 1e-2)}[dtype]
    torch.testing.assert_close(found.float(), wanted.float(), atol=atol, rtol=rtol)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
@pytest.mark.parametrize(("room", "fp8"), [(6, False), (24, False), (144, False), (1200, False), (144, True), (1200, True)])
def test_decoding_stores_the_new_position_and_attends_to_it(device, window, heads, kv_heads, room, fp8):
    torch.manual_seed(0)
    lengths = [1, 2, 17, 64, 65, 150]
    pool = Pool(len(lengths), kv_heads, device, fp8)
    before = [pool.held(row, length) for row, length in enumerate(lengths)]
    qkv = torch.randn(len(lengths), heads + 2 * kv_heads, WIDTH, device=device).to(pool.dtype)
    x = torch.randn(len(lengths), 48, device=device).to(pool.dtype)
    pos = torch.tensor(lengths, device=device, dtype=torch.int32) - 1
    workspace = attention.Workspace(
        room, heads, WIDTH, torch.device(device)
    )  # with room for many rows each is split into few parts
    workspace.parts.fill_(math.nan)
    out = attention.attend(
        qkv, x, pool.rotary, pool.keys, pool.values, pool.table, pos, workspace,
        heads=heads, scale=1 / math.sqrt(WIDTH), window=window, eps=EPS,
    )  # fmt: skip
    assert not workspace.counts.any()
    for row, length in enumerate(lengths):
        keys, values = before[row]
        keys[-1] = pool.turned(qkv[row, None, heads : heads + kv_heads], length - 1)[0].to(pool.kept).to(pool.dtype)
        value = qkv[row, heads + kv_heads :].float() / (x[row].float().square().mean() + EPS).sqrt()
        values[-1] = value.to(pool.kept).to(pool.dtype)
        for found, wanted in zip(pool.held(row, length), (keys, values), strict=True):
            close(found, wanted, pool.kept)
        query = pool.turned(qkv[row, None, :heads], length - 1)
        close(out[row], expected(query, keys, values, length - 1, window)[0], pool.kept)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("heads", "kv_heads", "fp8"), [(2, 2, False), (4, 2, False), (4, 2, True)])
def test_prompts_are_read_row_by_row_after_what_is_cached(device, window, heads, kv_heads, fp8):
    torch.manual_seed(0)
    parts = [(0, 70), (3, 1), (60, 70), (17, 5)]  # positions cached, new tokens
    padding = 7
    pool = Pool(len(parts), kv_heads, device, fp8)
    tokens = sum(new for _, new in parts) + padding
    qkv = torch.randn(tokens, heads + 2 * kv_heads, WIDTH, device=device).to(pool.dtype)
    rows, pos, pieces = [], [], []
    for row, (cached, new) in enumerate(parts):
        pieces += [[row, len(rows) + i, min(prefill.QUERIES, new - i)] for i in range(0, new, prefill.QUERIES)]
        rows += [row] * new
        pos += range(cached, cached + new)
    rows, pos, pieces = rows + [1] * padding, pos + [159] * padding, [*pieces, [0, 0, 0]]  # the last block of row 1 is unused
    row_of, at, cut = (torch.tensor(values, device=device, dtype=torch.int32) for values in (rows, pos, pieces))
    q = prefill.place(qkv, pool.rotary, row_of, at, pool.table, pool.keys, pool.values, heads=heads, eps=EPS)
    out = prefill.attend(q, pool.keys, pool.values, cut, at, pool.table, scale=1 / math.sqrt(WIDTH), window=window)
    begin = 0
    for row, (cached, new) in enumerate(parts):
        own = qkv[begin : begin + new]
        keys, values = pool.held(row, cached + new)
        close(keys[cached:], pool.turned(own[:, heads : heads + kv_heads], cached), pool.kept)
        close(values[cached:], own[:, heads + kv_heads :], pool.kept)
        wanted = expected(pool.turned(own[:, :heads], cached), keys, values, cached, window)
        close(out[begin : begin + new], wanted, pool.kept)
        begin += new
