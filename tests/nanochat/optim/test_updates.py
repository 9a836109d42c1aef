"""Each update agrees with a slow, readable reference implementation."""

import math

import pytest
import torch

from nanochat.config.recipe import OptimSpec
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.optim import Optimizer
from nanochat.optim.muon import orthogonalize

ONE = Ranks(0, 1, torch.device("cpu"))
CONFIG = GPTConfig(sequence_len=16, vocab_size=61, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)


def slow_orthogonal(gradient):
    wide = gradient.T if gradient.size(0) > gradient.size(1) else gradient
    x = wide / (wide.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if gradient.size(0) > gradient.size(1) else x


def slow_muon(weight, gradients, *, lr, momentum):
    """Muon, one matrix at a time."""
    average = torch.zeros_like(weight)
    for gradient in gradients:
        average = momentum * average + (1 - momentum) * gradient
        ahead = momentum * average + (1 - momentum) * gradient
        weight = weight - lr * math.sqrt(max(1, weight.size(0) / weight.size(1))) * slow_orthogonal(ahead)
    return weight


def model_with_gradients(steps):
    model = GPT(CONFIG)
    torch.manual_seed(3)
    init_weights(model)
    names = {name: param.detach().clone() for name, param in model.named_parameters()}
    gradients = [{name: torch.randn_like(value) for name, value in names.items()} for _ in range(steps)]
    return model, names, gradients


def run(model, optimizer, gradients, momentum=0.9, lrm=0.7):
    for step in gradients:
        for name, param in model.named_parameters():
            param.grad.copy_(step[name])
        optimizer.step(lrm, momentum)


def test_every_group_agrees_with_its_reference():
    model, before, gradients = model_with_gradients(steps=4)
    spec = OptimSpec(grad_clip=0.0, weight_decay=0.1)
    run(model, Optimizer(model, spec, ONE, lr_scale=0.5), gradients)
    width = (16 / 768) ** -0.5
    for name, param in model.named_parameters():
        history = [step[name] for step in gradients]
        if param is model.embed.weight or param is model.lm_head.weight:
            lr = (spec.embedding_lr if param is model.embed.weight else spec.unembedding_lr) * width * 0.5 * 0.7
            param_copy = torch.nn.Parameter(before[name].clone())
            reference = torch.optim.AdamW([param_copy], lr=lr, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.1)
            for gradient in history:
                param_copy.grad = gradient
                reference.step()
            expected = param_copy.detach()
        else:
            expected = slow_muon(before[name], history, lr=0.02 * 0.5 * 0.7, momentum=0.9)
        torch.testing.assert_close(param.detach(), expected, atol=2e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def test_width_factor_of_the_speedrun():
    assert pytest.approx(0.7745966692) == (1280 / 768) ** -0.5


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 32, 8), (2, 8, 32)])
def test_orthogonalize_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    values = torch.linalg.svdvals(orthogonalize(x))
    assert values.min() > 0.3
    assert values.max() < 1.3
    for matrix, one in zip(x, orthogonalize(x), strict=True):
        torch.testing.assert_close(one, slow_orthogonal(matrix), atol=1e-4, rtol=1e-3)


def test_orthogonalize_survives_half_precision_and_zeros():
    torch.manual_seed(0)
    x = torch.randn(2, 16, 16)
    x[1] = 0
    half = orthogonalize(x.bfloat16()).float()
    assert half[1].abs().max() == 0
    assert (half[0] - orthogonalize(x)[0]).norm() / half[0].norm() < 0.05


def test_clipping_scales_the_whole_gradient_by_its_norm():
    model, _, gradients = model_with_gradients(steps=1)
    optimizer = Optimizer(model, OptimSpec(grad_clip=1.0), ONE)
    for name, param in model.named_parameters():
        param.grad.copy_(gradients[0][name])
    expected = torch.cat([g.flatten() for g in gradients[0].values()]).norm()
    norm = optimizer.step(1.0, 0.9)
    torch.testing.assert_close(norm, expected)
    moments = optimizer.state()["embed.exp_avg"]
    torch.testing.assert_close(moments, 0.2 * gradients[0]["embed.weight"].flatten() / expected, atol=1e-6, rtol=1e-4)


def test_gradients_accumulate_until_cleared():
    model, _, _ = model_with_gradients(steps=0)
    optimizer = Optimizer(model, OptimSpec(), ONE)
    torch.nn.init.normal_(model.lm_head.weight)
    ids = torch.randint(0, 61, (2, 8))
    model(ids, ids).backward()
    once = model.embed.weight.grad.clone()
    model(ids, ids).backward()
    torch.testing.assert_close(model.embed.weight.grad, 2 * once)
    optimizer.zero_grad()
    assert all(param.grad.abs().max() == 0 for param in model.parameters())
