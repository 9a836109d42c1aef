"""Each kernel agrees with the plain function it replaces: on a GPU if there is one, otherwise in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F

from nanochat.kernels import cross_entropy, mlp, rotary
from nanochat.model.attention import rotate
from nanochat.model.layers import EPS, norm


def close(actual, expected, tolerance=0.01):
    """Compares by Frobenius norm, because bf16 rounds each element by up to 0.4 %."""
    actual, expected = actual.double(), expected.double()
    assert actual.isfinite().all()
    assert (actual - expected).norm() <= tolerance * expected.norm() + 1e-12


@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 2)])
def test_rotary_norm(device, heads, kv_heads):
    torch.manual_seed(0)
    x = torch.randn(2, 11, heads + kv_heads, 64, device=device, dtype=torch.bfloat16) * 3
    angle = torch.rand(11, 32, device=device) * 6
    tables = (angle.cos(), angle.sin())
    q, k, rstd = rotary.rotary_norm(x, *tables, heads, EPS)
    wide = x.float().requires_grad_()
    expected = norm(rotate(wide, tuple(t[None, :, None] for t in tables)))
    close(q, expected[:, :, :heads])
    close(k, expected[:, :, heads:])
    dq, dk = torch.randn_like(q), torch.randn_like(k)
    dx = rotary.rotary_norm_backward(dq, dk, q, k, rstd, *tables)
    expected.backward(torch.cat((dq, dk), 2).float())
    close(dx, wide.grad)


@pytest.mark.parametrize("each", [False, True], ids=["one scale", "a scale for each row"])
@pytest.mark.parametrize("approximate", [False, pytest.param(True, marks=pytest.mark.gpu)])
@pytest.mark.parametrize("vocab", [97, 9000, 20_000, 40_000])  # 8, 8, 16 and 32 warps
def test_cross_entropy(device, vocab, approximate, each):
    if approximate and device == "cpu":
        pytest.skip("tanh.approx is a GPU instruction")
    torch.manual_seed(0)
    logits = (torch.randn(7, vocab, device=device) * 12).bfloat16()
    targets = torch.randint(0, vocab, (7,), device=device)
    targets[2] = -1
    scale = torch.linspace(-1, 1, 7, device=device) if each else torch.tensor(0.25, device=device).expand(7)
    wide = logits.float().requires_grad_()
    expected = F.cross_entropy(15 * torch.tanh(wide / 15), targets, ignore_index=-1, reduction="none")
    (expected * scale).sum().backward()
    losses = cross_entropy.loss_and_grad_(logits, targets, scale, 15.0, approximate=approximate)
    close(losses, expected.detach(), 0.002)
    assert losses[2] == 0
    close(logits, wide.grad)
    assert logits[2].abs().max() == 0


@pytest.mark.parametrize(("rows", "width"), [(256, 64), (200, 128)])
def test_mlp(device, rows, width):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16  # the interpreter multiplies bf16 matrices' bit patterns
    x = torch.randn(rows, width, device=device).to(dtype).requires_grad_()
    up = (torch.randn(4 * width, width, device=device) / width**0.5).requires_grad_()
    down = (torch.randn(width, 4 * width, device=device) / width**0.5).requires_grad_()
    y = mlp.FusedMLP.apply(x, up, down)
    wide = [t.detach().to(dtype).double().requires_grad_() for t in (x, up, down)]
    expected = F.relu(wide[0] @ wide[1].T).square() @ wide[2].T
    close(y, expected.detach())
    dy = torch.randn_like(expected).to(dtype)
    y.backward(dy)
    expected.backward(dy.double())
    assert (up.grad.dtype, x.grad.dtype) == (torch.float32, dtype)
    for narrow, reference in zip((x, up, down), wide, strict=True):
        close(narrow.grad, reference.grad)


def test_mlp_adds_weight_gradients_in_place(device):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16
    x = torch.randn(256, 64, device=device).to(dtype).requires_grad_()
    up, down = (torch.randn(*shape, device=device).to(dtype) / 8 for shape in ((256, 64), (64, 256)))
    grads = [torch.randn(256, 64, device=device), torch.randn(64, 256, device=device)]
    before = [grad.clone() for grad in grads]
    y = mlp.FusedMLP.apply(x, up, down, *grads)
    wide = [t.detach().double().requires_grad_() for t in (x, up, down)]
    expected = F.relu(wide[0] @ wide[1].T).square() @ wide[2].T
    dy = torch.randn_like(expected).to(dtype)
    y.backward(dy)
    expected.backward(dy.double())
    for mine, reference in ((x.grad, wide[0].grad), (grads[0] - before[0], wide[1].grad), (grads[1] - before[1], wide[2].grad)):
        close(mine, reference)
