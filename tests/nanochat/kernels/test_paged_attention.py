"""Attention over blocks equals SDPA over the same keys and values: on a GPU if there is one, otherwise in Triton's interpreter."""

import math

import pytest
import torch
import torch.nn.functional as F

from nanochat.kernels import paged_attention


@pytest.mark.parametrize("window", [None, 5, 100])
@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (4, 2)])
def test_equals_sdpa_for_rows_of_any_length(device, window, heads, kv_heads):
    torch.manual_seed(0)
    size, width, lengths = 16, 32, [1, 2, 17, 64, 65, 150]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    keys, values = (torch.randn(80, size, kv_heads, width, device=device).to(dtype) for _ in range(2))
    q = torch.randn(len(lengths), heads, width, device=device).to(dtype)
    table = torch.randperm(80, device=device)[: len(lengths) * 10].view(len(lengths), 10).int()
    pos = torch.tensor(lengths, device=device) - 1
    out = paged_attention.attend(q, keys, values, table, pos, 1 / math.sqrt(width), window)
    for row, length in enumerate(lengths):
        held = table[row, : -(-length // size)].long()
        first = max(0, length - (window or length))
        k, v = (t[held].flatten(0, 1)[first:length].transpose(0, 1)[None].float() for t in (keys, values))
        expected = F.scaled_dot_product_attention(q[row, None, :, None].float(), k, v, enable_gqa=True)[0, :, 0]
        torch.testing.assert_close(out[row].float(), expected, atol=2e-2 if dtype is torch.bfloat16 else 1e-5, rtol=1e-2)
