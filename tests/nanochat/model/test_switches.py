"""Each architecture switch: off is the speedrun's model, on works as described, and a KV cache changes nothing."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from nanochat.config import recipe, scaling, shape
from nanochat.config.recipe import InitSpec
from nanochat.engine import Engine
from nanochat.engine.budget import Budget
from nanochat.engine.request import Request, Row, Sampling
from nanochat.engine.runner import Runner
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.model.attention import attention_mask

pytestmark = pytest.mark.usefixtures("one_core")
SPEEDRUN = GPTConfig(sequence_len=48, vocab_size=400, n_layer=4, n_head=2, n_kv_head=2, n_embd=32)
SWITCHES = {
    "residual_scalars": {"residual_scalars": True},
    "value_embeds": {"value_embeds": True},
    "value_embeds, grouped heads": {"value_embeds": True, "n_kv_head": 1},
    "window": {"window_pattern": "SSL", "window": 5},
    "qk_scale": {"qk_scale": 1.2},
    "rope_base": {"rope_base": 100_000.0},
    "smear": {"smear": True},
    "backout": {"backout": True},
    "all": {
        "residual_scalars": True,
        "value_embeds": True,
        "window_pattern": "SSL",
        "window": 5,
        "qk_scale": 1.2,
        "rope_base": 100_000.0,
        "smear": True,
        "backout": True,
    },
}
switches = pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES)


def model_of(changes: dict, *, trained: bool = True) -> GPT:
    model = GPT(dataclasses.replace(SPEEDRUN, **changes))
    torch.manual_seed(1)
    init_weights(model)
    if trained:
        for param in model.parameters():
            torch.nn.init.normal_(param, std=0.3)
    return model


def ids_of(rows: int = 2, length: int = 24) -> torch.Tensor:
    return torch.randint(400, (rows, length), generator=torch.Generator().manual_seed(0))


# -- off --


def test_without_switches_parameters_and_initialisation_are_the_speedruns():
    model = model_of({}, trained=False)
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    assert parts == {"embed", "blocks", "lm_head"}
    torch.manual_seed(1)
    torch.testing.assert_close(model.embed.weight, torch.randn(400, 32), rtol=0, atol=0)
    torch.testing.assert_close(model.blocks[0].attn.q.weight, torch.randn(32, 32) / math.sqrt(32))
    assert model.lm_head.weight.abs().max() == 0


@pytest.mark.parametrize(
    ("switch", "neutral"),
    [
        ({"residual_scalars": True}, {"resid": 1.0, "x0": 0.0}),
        ({"smear": True}, {"smear.amount": 0.0}),
        ({"backout": True}, {"backout": 0.0}),
        ({"window_pattern": "SSL", "window": 48}, {}),
    ],
)
def test_a_switch_at_its_neutral_value_equals_the_speedrun_bit_for_bit(switch, neutral):
    speedrun, other = model_of({}), GPT(dataclasses.replace(SPEEDRUN, **switch))
    missing, _ = other.load_state_dict(speedrun.state_dict(), strict=False)
    with torch.no_grad():
        for name in missing:
            other.get_parameter(name).fill_(neutral.get(name, 1.0))
    assert torch.equal(other(ids_of()), speedrun(ids_of()))


def test_a_checkpoint_that_names_no_switch_is_the_speedruns():
    old = {"sequence_len": 48, "vocab_size": 400, "n_layer": 4, "n_head": 2, "n_kv_head": 2, "n_embd": 32}
    assert GPTConfig(**old) == SPEEDRUN
    assert GPTConfig(**dataclasses.asdict(SPEEDRUN)) == SPEEDRUN


# -- on --


@switches
def test_counts_equal_the_formulas(switch):
    model = model_of(switch)
    assert model.num_params() == shape.num_params(model.config)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    products = 6 * sum(p.numel() for p in matrices)
    seen = sum(5 if model.config.window_of(layer) else 48 for layer in range(4))
    assert model.flops_per_token() == products + 12 * 32 * seen


@switches
def test_it_changes_the_logits_and_hides_the_future(switch):
    model, ids = model_of(switch), ids_of()
    other = ids.clone()
    other[:, 12:] = (other[:, 12:] + 1) % 400
    torch.testing.assert_close(model(ids)[:, :12], model(other)[:, :12])
    same = GPT(dataclasses.replace(SPEEDRUN, n_kv_head=model.config.n_kv_head))
    same.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(same(ids), model(ids), atol=1e-2)


@switches
def test_gradients_reach_every_parameter(switch):
    model, ids = model_of(switch), ids_of()
    model(ids[:, :-1], ids[:, 1:]).backward()
    for name, param in model.named_parameters():
        assert param.grad is not None, name
        assert param.grad.abs().max() > 0, name


def rows_of(ids, cached=0):
    """A row of the engine for each row of ids, with blocks of its own; `runner_of` has 3 rows of 8 blocks of 4 positions."""
    return [
        Row(Request(tokens, Sampling(), 1), 0, tokens, blocks=list(range(8 * i, 8 * (i + 1))), cached=cached)
        for i, tokens in enumerate(ids.tolist())
    ]


def runner_of(model):
    budget = Budget(block=4, step=64, idle=64, chunk=8, even=True)
    return Runner(model, torch.float32, 24, budget, cache_dtype=torch.float32)


def logits_after(runner, rows, new):
    runner.read(rows, new)
    return runner.draw(range(len(rows)), rows).logits


@switches
@pytest.mark.parametrize("pieces", [[24], [23, 1], [5, 1, 7, 1, 10], [1] * 24])
def test_chunks_through_the_pool_equal_one_pass(switch, pieces):
    model, ids = model_of(switch), ids_of()
    runner, rows = runner_of(model), rows_of(ids)
    with torch.no_grad():
        whole = model(ids)
    for piece in pieces:
        logits = logits_after(runner, rows, [piece] * len(rows))
        for row in rows:
            row.cached += piece
        torch.testing.assert_close(logits, whole[:, rows[0].cached - 1], atol=1e-4, rtol=1e-4)


@switches
def test_rows_of_different_lengths_continue_together(switch):
    model, ids = model_of(switch), ids_of(3)
    runner, rows = runner_of(model), rows_of(ids)
    with torch.no_grad():
        whole = model(ids)
    for row, length in zip(rows, (15, 4, 9), strict=True):
        runner.read([row], [length])
        row.cached = length
    logits = logits_after(runner, rows, [3, 1, 2])
    expected = torch.stack([whole[i, at] for i, at in enumerate((15 + 2, 4, 9 + 1))])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@switches
def test_greedy_generation_is_the_same_cached_and_uncached(switch, tokenizer):
    model, ids = model_of(switch), [3, 14, 15, 92, 65, 35]
    said, _ = Engine(model, tokenizer, dtype=torch.float32).generate_batch(ids, num_samples=3, max_tokens=30, temperature=0)
    expected: list[int] = []
    ends = (tokenizer.bos, tokenizer.special("<|assistant_end|>"))
    with torch.no_grad():
        while len(expected) < 30:
            token = int(model(torch.tensor([[*ids, *expected]]))[0, -1].argmax())
            if token in ends:
                break
            expected.append(token)
    assert said == [expected] * 3


def test_value_embeddings_lie_on_every_other_layer_and_the_last():
    for depth, layers in ((4, [1, 3]), (5, [0, 2, 4])):
        config = dataclasses.replace(SPEEDRUN, n_layer=depth, value_embeds=True)
        assert [layer for layer in range(depth) if config.has_value_embed(layer)] == layers
        assert sorted(GPT(config).value_embeds) == [str(layer) for layer in layers]


def test_value_embeddings_pass_one_gate_per_head():
    model = model_of({"value_embeds": True})
    attn, x, value = model.blocks[1].attn, torch.randn(2, 3, 32), torch.randn(2, 3, 32)
    for head in range(2):
        gate = 3 * torch.sigmoid((x[..., :12] * attn.value_gate.weight[head]).sum(-1))
        expected = gate[..., None] * value[..., 16 * head : 16 * head + 16]
        torch.testing.assert_close(attn._gated(value, x)[:, head], expected)


def test_scaled_queries_and_keys_are_a_sharper_softmax():
    model = model_of({"qk_scale": 1.2})
    assert model.blocks[0].attn.scale == pytest.approx(1.44 / math.sqrt(16))
    assert model_of({}).blocks[0].attn.scale is None


def test_smear_looks_one_token_back():
    model = model_of({"smear": True})
    x = torch.randn(1, 3, 32)
    gate = torch.sigmoid(F.linear(x[..., :24], model.smear.gate.weight))
    out = model.smear(x, None)
    torch.testing.assert_close(out[:, 0], x[:, 0])
    torch.testing.assert_close(out[:, 1:], x[:, 1:] + model.smear.amount * gate[:, 1:] * x[:, :-1])


@pytest.mark.parametrize(("queries", "keys"), [(8, 8), (1, 8), (3, 8), (2, 2)])
def test_windows_hide_all_but_the_latest(queries, keys):
    mask = attention_mask(queries, keys, None, torch.device("cpu"), window=4)
    for row in range(queries):
        position = keys - queries + row
        seen = [key for key in range(keys) if mask is None or mask[row, key]]
        allowed = list(range(max(0, position - 3), position + 1))
        assert seen == allowed if mask is not None else queries in (1, keys)
    positions = torch.arange(keys - queries, keys)[None]
    each = attention_mask(queries, keys, positions, torch.device("cpu"), window=4)
    if mask is not None:
        assert torch.equal(each[0, 0], mask)


def test_the_last_layer_sees_all():
    config = dataclasses.replace(SPEEDRUN, window_pattern="SSSL", window=5, n_layer=6)
    assert [config.window_of(layer) for layer in range(6)] == [5, 5, 5, None, 5, None]
    of = GPTConfig.of(recipe.ModelSpec(window_pattern="SSSL", seq_len=2000), 100)
    assert of.window == 512  # 500, rounded up to a multiple of 128


# -- fresh weights --


def test_modern_fresh_weights():
    init = InitSpec(embedding_std=0.8, matrices="uniform", mlp_scale=0.4, head_std=0.001)
    config = dataclasses.replace(SPEEDRUN, **{**SWITCHES["all"], "n_embd": 128})
    model = GPT(config)
    torch.manual_seed(0)
    init_weights(model, init)
    std = {name: param.std().item() for name, param in model.named_parameters() if param.numel() > 1}
    unit = 1 / math.sqrt(128)
    assert std["embed.weight"] == pytest.approx(0.8, rel=0.03)
    assert std["lm_head.weight"] == pytest.approx(0.001, rel=0.03)
    assert std["blocks.0.attn.q.weight"] == pytest.approx(unit, rel=0.03)
    assert std["blocks.0.mlp.up.weight"] == pytest.approx(0.4 * unit, rel=0.03)
    assert std["value_embeds.1.weight"] == pytest.approx(unit, rel=0.03)
    assert model.blocks[0].attn.q.weight.abs().max() <= math.sqrt(3) * unit  # the bound of the uniform distribution
    for name in ("blocks.1.attn.out", "blocks.1.mlp.down", "blocks.1.attn.value_gate", "smear.gate"):
        assert model.get_submodule(name).weight.abs().max() == 0
    torch.testing.assert_close(model.resid.detach(), torch.tensor([1.15, 1.15 - 0.1 / 3, 1.15 - 0.2 / 3, 1.05]))
    torch.testing.assert_close(model.x0.detach(), torch.tensor([0.2, 0.15, 0.1, 0.05]))
    assert (model.smear.amount.item(), model.backout.item()) == (0.0, pytest.approx(0.2))


# -- numbers of nanochat's published models --


def test_counts_of_nanochats_published_models():
    def spec(depth):
        return recipe.resolve("modern", {"model.depth": depth, "model.window_pattern": "SSSL"}).model

    d12, d24 = (GPTConfig.of(spec(depth), 32_768) for depth in (12, 24))
    assert (shape.num_params(d12), shape.num_params(d24)) == (286_261_730, 1_384_122_122)
    assert shape.scaling_params(d12) == pytest.approx(110.1e6, rel=1e-3)
    assert shape.flops_per_token(d24) == pytest.approx(4.775225e9, rel=1e-6)
    assert scaling.decay_scale(2**20, spec(24), 32_768) * 0.28 == pytest.approx(0.0597, rel=2e-3)
    assert scaling.lr_scale(2**20) == pytest.approx(1.414, rel=1e-3)
    sizes = {depth: scaling.batch_size(spec(depth), 32_768) for depth in (8, 10, 12, 16, 18, 20, 26, 32)}
    assert sizes == {8: 2**18, 10: 2**19, 12: 2**19, 16: 2**19, 18: 2**20, 20: 2**20, 26: 2**20, 32: 2**21}
