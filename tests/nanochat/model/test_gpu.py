"""The whole model as it trains on a GPU, fused, in fp8 and compiled, against the plain one."""

import pytest
import torch

from nanochat import kernels
from nanochat.model import GPT, GPTConfig, fp8

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CONFIG = GPTConfig(sequence_len=256, vocab_size=4096, n_layer=2, n_head=2, n_kv_head=2, n_embd=256)
MODERN = GPTConfig(256, 4096, 4, 2, 2, 256, residual_scalars=True, value_embeds=True, smear=True, backout=True, qk_scale=1.2)


def gradients(config: GPTConfig, kind: str = "cuda", *, plain: bool = False, compiled: bool = False, quantized: bool = False):
    """Loss and gradients of the same weights and tokens; on "cpu" those of the twins."""
    torch.manual_seed(0)
    device = torch.device(kind)
    kernels.detect(device)
    model = GPT(config)
    model.init_weights()
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.3 if param.ndim < 2 else param.size(-1) ** -0.5)
    tokens = torch.randint(config.vocab_size, (8, config.sequence_len + 1)).to(device)
    model.to(device)
    magnitudes = fp8.apply(model) if quantized else None
    forward = torch.compile(model, dynamic=False, fullgraph=True) if compiled else model
    with torch.autocast(kind, torch.bfloat16):
        if plain:
            with kernels.plain():
                loss = forward(tokens[:, :-1], tokens[:, 1:])
                loss.backward()
        else:
            loss = forward(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
    if magnitudes:
        magnitudes.roll()
    return loss.item(), {name: param.grad.cpu() for name, param in model.named_parameters()}


@pytest.mark.parametrize("config", [CONFIG, MODERN], ids=["speedrun", "modern"])
@pytest.mark.parametrize(
    ("how", "tolerance"),
    [({}, 0.05), ({"compiled": True}, 0.05), ({"quantized": True}, 0.2), ({"quantized": True, "compiled": True}, 0.2)],
    ids=["fused", "fused and compiled", "fp8", "fp8 and compiled"],
)
def test_every_gradient_is_that_of_the_plain_model(config, how, tolerance):
    # fp8's own error is more than this in the modern model (its twin's scalars are off by up to 0.45), so there the twin judges.
    twin = config is MODERN and "quantized" in how
    expected_loss, expected = gradients(config, "cpu", quantized=True) if twin else gradients(config, plain=True)
    loss, found = gradients(config, **how)
    assert loss == pytest.approx(expected_loss, rel=0.01)
    for name, grad in expected.items():
        assert grad.norm() > 0, name
        assert (found[name] - grad).norm() <= tolerance * grad.norm(), name
