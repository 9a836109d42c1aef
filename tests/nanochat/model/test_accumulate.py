"""Gradients added in place are those that autograd would have added, and nothing else changes."""

import pytest
import torch

from nanochat import kernels
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, accumulate
from nanochat.optim import Optimizer
from nanochat.recipe import OptimSpec

SEED = GPTConfig(32, 256, 2, 2, 2, 32)
GROUPED = GPTConfig(32, 256, 4, 4, 2, 64, residual_scalars=True, value_embeds=True, smear=True, backout=True)


def trained(config, *, applied, compiled=False, plain=False):
    """The gradients after two micro-steps, and the weights after the optimizer's step."""
    torch.manual_seed(0)
    model = GPT(config)
    model.init_weights()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.1)
    optimizer = Optimizer(model, OptimSpec(), Ranks(0, 1, torch.device("cpu"), torch.float32))
    if applied:
        accumulate.apply(model)
    forward = torch.compile(model, backend="aot_eager", dynamic=False, fullgraph=True) if compiled else model
    for _ in range(2):
        tokens = torch.randint(config.vocab_size, (2, 33))
        if plain:
            with kernels.plain():
                forward(tokens[:, :-1], tokens[:, 1:]).backward()
        else:
            forward(tokens[:, :-1], tokens[:, 1:]).backward()
    grads = {name: param.grad.clone() for name, param in model.named_parameters()}
    optimizer.step(1.0, 0.95)
    return grads, {name: param.detach().clone() for name, param in model.named_parameters()}


@pytest.mark.parametrize("config", [SEED, GROUPED], ids=["speedrun", "modern"])
@pytest.mark.parametrize("how", [{}, {"compiled": True}, {"plain": True}], ids=["eager", "compiled", "switched off"])
def test_gradients_and_weights_are_autograds(config, how):
    expected = trained(config, applied=False, plain="plain" in how)
    for mine, theirs in zip(trained(config, applied=True, **how), expected, strict=True):
        for name, tensor in theirs.items():
            assert tensor.any(), name
            torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_a_weight_without_a_place_is_refused():
    model = GPT(SEED)
    with pytest.raises(ValueError, match="optimizer first"):
        accumulate.apply(model)
