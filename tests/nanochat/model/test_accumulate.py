"""Adding gradients in place gives the same gradients as autograd, and changes nothing else."""

from contextlib import nullcontext

import pytest
import torch

from nanochat import kernels
from nanochat.config.recipe import OptimSpec
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, accumulate, init_weights
from nanochat.model.layers import linears
from nanochat.optim import Optimizer

SPEEDRUN = GPTConfig(32, 256, 2, 2, 2, 32)
GROUPED = GPTConfig(32, 256, 4, 4, 2, 64, residual_scalars=True, value_embeds=True, smear=True, backout=True)


def trained(config, *, applied, dtype=torch.float32, compiled=False, plain=False):
    """The gradients after two micro-steps and the weights after two optimizer steps."""
    torch.manual_seed(0)
    model = GPT(config)
    init_weights(model)
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.1)
    ranks = Ranks(0, 1, torch.device("cpu"), dtype)
    optimizer = Optimizer(model, OptimSpec(), ranks)
    copies = accumulate.apply(model, dtype) if applied else None
    forward = torch.compile(model, backend="aot_eager", dynamic=False, fullgraph=True) if compiled else model
    for _ in range(2):
        optimizer.zero_grad()
        for _ in range(2):
            tokens = torch.randint(config.vocab_size, (2, 33))
            with kernels.plain() if plain else nullcontext(), ranks.autocast():
                forward(tokens[:, :-1], tokens[:, 1:]).backward()
        grads = {name: param.grad.clone() for name, param in model.named_parameters()}
        optimizer.step(1.0, 0.95)
        if copies:
            copies.refresh()
    return grads, {name: param.detach().clone() for name, param in model.named_parameters()}


@pytest.mark.parametrize("config", [SPEEDRUN, GROUPED], ids=["speedrun", "modern"])
@pytest.mark.parametrize("how", [{}, {"compiled": True}, {"plain": True}], ids=["eager", "compiled", "switched off"])
def test_gradients_and_weights_equal_autograds(config, how):
    expected = trained(config, applied=False, plain="plain" in how)
    for mine, theirs in zip(trained(config, applied=True, **how), expected, strict=True):
        for name, tensor in theirs.items():
            assert tensor.any(), name
            torch.testing.assert_close(mine[name], tensor, rtol=3e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_bf16_gradients_are_as_accurate_as_autograds(compiled):
    """Gradients that are never rounded to bf16 come closer to those of fp32."""
    truth, _ = trained(SPEEDRUN, applied=False)
    autograd, _ = trained(SPEEDRUN, applied=False, dtype=torch.bfloat16)
    found, _ = trained(SPEEDRUN, applied=True, dtype=torch.bfloat16, compiled=compiled)
    for name, grad in truth.items():
        mine, theirs = ((grads[name] - grad).norm() / grad.norm() for grads in (found, autograd))
        assert mine <= 1.5 * theirs + 0.01, name


def test_products_of_several_weights():
    """Attention's call on a GPU: one product for queries and keys, one for values. Each weight gets its own gradient."""
    torch.manual_seed(0)
    model = GPT(GROUPED)
    init_weights(model)
    optimizer = Optimizer(model, OptimSpec(), Ranks(0, 1, torch.device("cpu")))
    copies = accumulate.apply(model, torch.float32)
    attn = model.blocks[0].attn
    weights = [attn.q.weight, attn.k.weight, attn.v.weight]
    with torch.no_grad():
        for weight in weights:
            weight.normal_()
    copies.refresh()
    results = []
    for matmuls in (attn.matmuls, linears):
        optimizer.zero_grad()
        x = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
        both, v = matmuls(x, torch.cat(weights[:2]), weights[2])
        (both.square().sum() + v.pow(3).sum()).backward()
        results.append([both, v, x.grad, *(weight.grad.clone() for weight in weights)])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-3)


def test_a_changed_weight_has_no_effect_before_refresh():
    """The model reads the copy, so code that changes weights must call `refresh`."""
    model = GPT(SPEEDRUN)
    init_weights(model)
    optimizer = Optimizer(model, OptimSpec(), Ranks(0, 1, torch.device("cpu")))
    copies = accumulate.apply(model, torch.float32)
    x, linear = torch.randn(8, 32), model.blocks[0].attn.v
    before = linear(x)
    with torch.no_grad():
        linear.weight.mul_(2)
    torch.testing.assert_close(linear(x), before)
    copies.refresh()
    torch.testing.assert_close(linear(x), 2 * before)
    assert optimizer.steps == 0


def test_a_weight_without_a_gradient_tensor_is_refused():
    model = GPT(SPEEDRUN)
    with pytest.raises(ValueError, match="optimizer first"):
        accumulate.apply(model, torch.float32)
    with pytest.raises(ValueError, match="optimizer first"):
        accumulate.apply(model, torch.float32, matmuls=False)
