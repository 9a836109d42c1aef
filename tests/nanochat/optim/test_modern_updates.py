"""The options of Muon and AdamW that the speedrun does not use agree with slow reference implementations."""

import math

import pytest
import torch

from nanochat.config.recipe import AdamSpec, OptimSpec
from nanochat.distributed import Ranks
from nanochat.model import GPT, init_weights
from nanochat.optim import Optimizer
from nanochat.optim.muon import ITERATIONS, muon_update, normalize_neurons, orthogonalize

from . import worker

ONE = Ranks(0, 1, torch.device("cpu"))
POLAR = (
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
)


def update(weight, gradients, **how):
    """`weight` after one muon_update per gradient."""
    momentum = torch.zeros_like(weight)
    for gradient in gradients:
        muon_update(
            weight,
            gradient,
            momentum,
            scale=torch.tensor(1.0),
            lr=torch.tensor(0.1),
            momentum=torch.tensor(0.9),
            dtype=torch.float32,
            **how,
        )
    return weight


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 32, 8), (2, 8, 32)])
def test_polar_express_follows_the_singular_values(shape):
    """An odd polynomial of a matrix applies that polynomial to its singular values and keeps its singular vectors."""
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    s = s / (1.02 * x.norm(dim=(-2, -1))[:, None])
    for a, b, c in POLAR:
        s = a * s + b * s**3 + c * s**5
    got = orthogonalize(x.float(), ITERATIONS["polar_express"]).double()
    torch.testing.assert_close(got, u @ torch.diag_embed(s) @ v, atol=1e-3, rtol=1e-3)


def test_cautious_decay_shrinks_only_where_the_update_shrinks():
    torch.manual_seed(0)
    before, gradient = torch.randn(2, 8, 8), torch.randn(2, 8, 8)
    plain = update(before.clone(), [gradient])
    got = update(before.clone(), [gradient], weight_decay=torch.tensor(0.5))
    step = before - plain  # subtracted from the weights
    for old, new, without, taken in zip(before.flatten(), got.flatten(), plain.flatten(), step.flatten(), strict=True):
        expected = without - 0.1 * 0.5 * old if old * taken >= 0 else without
        torch.testing.assert_close(new, expected, atol=1e-6, rtol=1e-5)
    none = update(before.clone(), [gradient], weight_decay=torch.tensor(0.0))
    torch.testing.assert_close(none, plain)


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 32, 8), (2, 8, 32)])
def test_normuon_agrees_with_a_slow_reference(shape):
    torch.manual_seed(0)
    squares = torch.zeros(2, max(shape[1:]))
    running = [[0.0] * max(shape[1:]) for _ in range(2)]
    for _ in range(3):
        u = torch.randn(shape) * torch.linspace(0.1, 3, max(shape[1:])).view((1, -1, 1) if shape[1] >= shape[2] else (1, 1, -1))
        got = normalize_neurons(u, squares, 0.9)
        for k in range(2):
            lines = list(u[k]) if shape[1] >= shape[2] else list(u[k].T)
            for i, line in enumerate(lines):
                running[k][i] = 0.9 * running[k][i] + 0.1 * line.square().mean().item()
            normalized = torch.stack([line / math.sqrt(r) for line, r in zip(lines, running[k], strict=True)])
            normalized = normalized * (u[k].norm() / normalized.norm())
            torch.testing.assert_close(got[k], normalized if shape[1] >= shape[2] else normalized.T, atol=1e-5, rtol=1e-4)


def test_zero_gradients_change_nothing():
    weight = torch.randn(1, 8, 8)
    how = {"iteration": ITERATIONS["polar_express"], "squares": torch.zeros(1, 8), "beta2": 0.9}
    assert torch.equal(update(weight.clone(), [torch.zeros(1, 8, 8)], **how), weight)


# -- groups --


def modern_model():
    torch.manual_seed(3)
    model = GPT(worker.MODERN)
    init_weights(model)
    return model


def test_every_parameter_belongs_to_one_group():
    model = modern_model()
    groups = {g.bucket.name: g for g in Optimizer(model, OptimSpec(), ONE).groups}
    adam = {name: group.adam for name, group in groups.items() if group.adam}
    assert set(adam) == {"embed", "lm_head", "value_embeds", "resid", "x0", "smear"}
    sizes = {name: groups[name].bucket.numel for name in adam}
    assert sizes == {"embed": 976, "lm_head": 976, "value_embeds": 2 * 976, "resid": 4, "x0": 4, "smear": 16 + 2}
    assert "muon_2x12" in groups  # the gates of the value embeddings


def test_adam_groups_agree_with_torchs_adamw():
    model = modern_model()
    spec = OptimSpec(
        grad_clip=0,
        embedding_lr=0.3,
        embedding_betas=(0.8, 0.995),
        embedding_weight_decay=0.001,
        unembedding_betas=(0.8, 0.96),
        weight_decay=0.02,
        value_embeds=AdamSpec(lr=0.15, betas=(0.8, 0.995), weight_decay=0.01),
    )
    width = (16 / 768) ** -0.5
    how = {
        "embed.weight": (0.3 * width, (0.8, 0.995), 0.001),
        "lm_head.weight": (0.004 * width, (0.8, 0.96), 0.02),
        "value_embeds.1.weight": (0.15 * width, (0.8, 0.995), 0.01),
        "resid": (0.005, (0.8, 0.95), 0.05),
        "x0": (0.5, (0.96, 0.95), 0.0),
        "smear.amount": (0.2, (0.8, 0.95), 0.0),
        "smear.gate.weight": (0.2, (0.8, 0.95), 0.0),
        "backout": (0.2, (0.8, 0.95), 0.0),
    }
    references = {name: torch.nn.Parameter(model.get_parameter(name).detach().clone()) for name in how}
    adams = [
        torch.optim.AdamW([references[name]], lr=lr * 0.7, betas=betas, eps=1e-10, weight_decay=decay)
        for name, (lr, betas, decay) in how.items()
    ]
    optimizer = Optimizer(model, spec, ONE)
    for _ in range(4):
        for name, param in model.named_parameters():
            param.grad.normal_()
            if name in references:
                references[name].grad = param.grad.clone()
        optimizer.step(0.7, 0.9)
        for adam in adams:
            adam.step()
    for name, reference in references.items():
        torch.testing.assert_close(
            model.get_parameter(name).detach(),
            reference.detach(),
            atol=2e-5,
            rtol=1e-4,
            msg=lambda text, n=name: f"{n}: {text}",
        )


def test_decay_multiplies_the_matrices_weight_decay_only():
    def after(spec, decay):
        model = modern_model()
        optimizer = Optimizer(model, spec, ONE)
        torch.manual_seed(5)
        for param in model.parameters():
            param.grad.normal_()
        optimizer.step(1.0, 0.9, decay)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    none, some = OptimSpec(grad_clip=0), OptimSpec(grad_clip=0, matrix_weight_decay=0.2)
    torch.testing.assert_close(after(some, 0.0), after(none, 1.0))
    torch.testing.assert_close(after(some, 0.5), after(OptimSpec(grad_clip=0, matrix_weight_decay=0.1), 1.0))
    assert not torch.equal(after(some, 1.0), after(none, 1.0))
