import math

import pytest
import torch
import torch.nn.functional as F

from nanochat.config import shape
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.model.attention import rotate

SMALL = GPTConfig(sequence_len=32, vocab_size=97, n_layer=2, n_head=4, n_kv_head=4, n_embd=32)


def small(config: GPTConfig = SMALL, *, trained: bool = True) -> GPT:
    model = GPT(config)
    torch.manual_seed(1)
    init_weights(model)
    if trained:  # the zeros of a fresh model would hide most mistakes
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.2)
    return model


class GrowingCache:
    """The simplest implementation of the KV-cache protocol."""

    def __init__(self, layers: int):
        self.pos, self.layers = 0, layers
        self.kv: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(self, layer, k, v):
        if layer in self.kv:
            k, v = torch.cat((self.kv[layer][0], k), 2), torch.cat((self.kv[layer][1], v), 2)
        self.kv[layer] = (k, v)
        if layer == self.layers - 1:
            self.pos = k.size(2)
        return k, v


class StaticCache:
    """Fixed-length buffers whose rows are at different positions, like those of a batched engine."""

    def __init__(self, config: GPTConfig, rows: int, length: int):
        size = (rows, config.n_kv_head, length, config.head_dim)
        self.pos = torch.zeros(rows, dtype=torch.int64)
        self.layers = config.n_layer
        self.k = [torch.full(size, 1e4) for _ in range(config.n_layer)]  # garbage that a wrong mask would expose
        self.v = [torch.full(size, 1e4) for _ in range(config.n_layer)]

    def update(self, layer, k, v):
        for row, at in enumerate(self.pos.tolist()):
            self.k[layer][row, :, at : at + k.size(2)] = k[row]
            self.v[layer][row, :, at : at + v.size(2)] = v[row]
        if layer == self.layers - 1:
            self.pos += k.size(2)
        return self.k[layer], self.v[layer]


def test_fresh_model_predicts_uniformly():
    model = small(trained=False)
    ids = torch.randint(0, 97, (2, 16))
    assert model(ids).abs().max() == 0
    assert model(ids, ids).item() == pytest.approx(math.log(97), abs=1e-6)


def test_built_on_meta_is_the_same_model():
    with torch.device("meta"):
        model = GPT(SMALL)
    model.to_empty(device="cpu")
    torch.manual_seed(1)
    init_weights(model)
    expected = small(trained=False)
    ids = torch.randint(0, 97, (2, 16))
    torch.testing.assert_close(model.hidden(ids), expected.hidden(ids))


def test_counts_equal_the_formulas():
    for kv in (4, 2):
        config = GPTConfig(32, 97, 2, 4, kv, 32)
        assert GPT(config).num_params() == shape.num_params(config)
    assert GPT(SMALL).flops_per_token() == 6 * (2 * 12 * 32 * 32 + 97 * 32) + 12 * 2 * 4 * 8 * 32


def test_the_future_is_hidden():
    model = small()
    ids = torch.randint(0, 97, (1, 16))
    other = ids.clone()
    other[0, 10:] = (other[0, 10:] + 1) % 97
    torch.testing.assert_close(model(ids)[:, :10], model(other)[:, :10])
    assert not torch.allclose(model(ids)[:, 10:], model(other)[:, 10:])


def test_rotation_is_by_minus_theta_and_pairs_halves():
    x = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    cos, sin = torch.tensor(0.8).view(1, 1, 1, 1), torch.tensor(0.6).view(1, 1, 1, 1)
    torch.testing.assert_close(rotate(x, (cos, sin)).flatten(), torch.tensor([0.8, -0.6]))


def test_attention_depends_only_on_distances():
    model = small()
    ids = torch.randint(0, 97, (1, 8))
    cache = GrowingCache(SMALL.n_layer)
    cache.pos = 100  # an empty cache at position 100: distances stay the same, positions shift

    torch.testing.assert_close(model(ids, cache=cache), model(ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("pieces", [[16], [15, 1], [7, 9], [1] * 16, [5, 1, 6, 4]])
def test_chunks_with_a_cache_equal_one_pass(pieces, kv_heads):
    config = GPTConfig(32, 97, 2, 4, kv_heads, 32)
    model, cache = small(config), GrowingCache(2)
    ids = torch.randint(0, 97, (3, 16))
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in ids.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), model(ids), atol=1e-4, rtol=1e-4)


def test_rows_at_different_positions():
    model = small()
    ids = torch.randint(0, 97, (2, 12))
    cache = StaticCache(SMALL, rows=2, length=20)
    with torch.no_grad():
        whole = model(ids)
        model(ids[:, :4], cache=cache)
        cache.pos = torch.tensor([4, 2])  # the second row drops two tokens
        step = torch.stack((ids[0, 4:7], ids[1, 2:5]))
        out = model(step, cache=cache)
    torch.testing.assert_close(out[0], whole[0, 4:7], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(out[1], whole[1, 2:5], atol=1e-4, rtol=1e-4)
    assert cache.pos.tolist() == [7, 5]


def test_positions_beyond_the_tables_are_refused():
    cache = GrowingCache(2)
    cache.pos = 320
    with pytest.raises(ValueError, match="rotary tables"):
        small()(torch.zeros(1, 1, dtype=torch.int64), cache=cache)


def test_residual_stream_follows_autocast():
    model = small()
    ids = torch.randint(0, 97, (2, 16))
    with torch.autocast("cpu", torch.bfloat16):
        assert model.hidden(ids).dtype == torch.bfloat16
        logits = model(ids)
    assert logits.dtype == torch.float32
    assert F.mse_loss(logits, model(ids)).sqrt() < 0.3


def test_learns_a_sentence():
    model = small(trained=False)
    ids = torch.randint(0, 97, (1, 33))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
