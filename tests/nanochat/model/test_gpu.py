"""The whole model as it trains on a GPU, fused, in fp8 and compiled, against the plain one."""

import pytest
import torch

from nanochat import kernels
from nanochat.model import GPT, GPTConfig, fp8

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CONFIG = GPTConfig(sequence_len=256, vocab_size=4096, n_layer=2, n_head=2, n_kv_head=2, n_embd=256)
MODERN = GPTConfig(256, 4096, 4, 2, 2, 256, residual_scalars=True, value_embeds=True, smear=True, backout=True, qk_scale=1.2)


def gradients(config: GPTConfig, *, plain: bool = False, compiled: bool = False, quantized: bool = False):
    """Loss and gradients of the same weights and tokens."""
    torch.manual_seed(0)
    device = torch.device("cuda")
    kernels.detect(device)
    with device:
        model = GPT(config)
    model.init_weights()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3 if param.ndim < 2 else param.size(-1) ** -0.5)
    magnitudes = fp8.apply(model) if quantized else None
    tokens = torch.randint(config.vocab_size, (8, config.sequence_len + 1), device=device)
    forward = torch.compile(model, dynamic=False, fullgraph=True) if compiled else model
    with torch.autocast("cuda", torch.bfloat16):
        if plain:
            with kernels.plain():
                loss = forward(tokens[:, :-1], tokens[:, 1:])
                loss.backward()
        else:
            loss = forward(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
    if magnitudes:
        magnitudes.roll()
    return loss.item(), {name: param.grad for name, param in model.named_parameters()}


@pytest.mark.parametrize("config", [CONFIG, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize(
    ("how", "tolerance"),
    [({}, 0.05), ({"compiled": True}, 0.05), ({"quantized": True}, 0.2), ({"quantized": True, "compiled": True}, 0.2)],
    ids=["fused", "fused and compiled", "fp8", "fp8 and compiled"],
)
def test_every_gradient_is_that_of_the_plain_model(config, how, tolerance):
    expected_loss, expected = gradients(config, plain=True)
    loss, found = gradients(config, **how)
    assert loss == pytest.approx(expected_loss, rel=0.01)
    for name, grad in expected.items():
        assert grad.norm() > 0, name
        # A scalar's gradient sums over all tokens what partly cancels: its error is not averaged as a matrix's is.
        assert (found[name] - grad).norm() <= tolerance * (2 if grad.ndim < 2 else 1) * grad.norm(), name
