import pytest
import torch
import torch.nn.functional as F

from nanochat.model import loss as loss_module
from nanochat.model.loss import head_loss, softcap


def reference(hidden, weight, targets, reduction):
    """The textbook form of head and loss."""
    logits = 15 * torch.tanh((hidden @ weight.T).float() / 15)
    losses = F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-1, reduction="none")
    counted = (targets.flatten() != -1).sum()
    return {"mean": losses.sum() / counted.clamp(min=1), "sum": losses.sum(), "none": losses.view_as(targets)}[reduction]


@pytest.fixture(params=[5, 64, 10**6], ids=lambda rows: f"{rows} rows a chunk")
def _chunks(request, monkeypatch):
    monkeypatch.setitem(loss_module.CHUNK_ELEMENTS, "cpu", request.param * 101)


def case(dtype=torch.float32):
    torch.manual_seed(0)
    hidden = torch.randn(3, 20, 16, dtype=dtype, requires_grad=True)
    weight = torch.randn(101, 16, requires_grad=True)
    targets = torch.randint(0, 101, (3, 20))
    targets[1, 5:] = -1
    return hidden, weight, targets


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_fused_agrees_with_the_reference(reduction):
    hidden, weight, targets = case()
    expected = reference(hidden, weight, targets, reduction)
    actual = head_loss(hidden, weight, targets, reduction)
    torch.testing.assert_close(actual, expected)
    with torch.no_grad():
        torch.testing.assert_close(head_loss(hidden, weight, targets, reduction), expected)
    upstream = torch.randn_like(expected)
    for a, e in zip(
        torch.autograd.grad(actual, (hidden, weight), upstream),
        torch.autograd.grad(expected, (hidden, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("trains", [True, False])
def test_factors_multiply_the_losses_of_their_row(trains):
    hidden, weight, targets = case()
    factors = torch.tensor([0.5, -2.0, 0.0])
    expected = (reference(hidden, weight, targets, "none") * factors[:, None]).sum()
    with torch.set_grad_enabled(trains):
        actual = head_loss(hidden, weight, targets, "sum", factors)
    torch.testing.assert_close(actual, expected)
    if trains:
        for a, e in zip(
            torch.autograd.grad(actual, (hidden, weight)), torch.autograd.grad(expected, (hidden, weight)), strict=True
        ):
            torch.testing.assert_close(a, e, atol=1e-5, rtol=1e-4)


def test_bf16_states_keep_loss_and_head_gradient_in_fp32():
    hidden, weight, targets = case(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        actual = head_loss(hidden, weight, targets)
    actual.backward()
    assert (actual.dtype, weight.grad.dtype, hidden.grad.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    torch.testing.assert_close(actual, reference(hidden.float(), weight, targets, "mean"), atol=0.02, rtol=0.02)


def test_all_targets_ignored_gives_zero_loss():
    hidden, weight, targets = case()
    loss = head_loss(hidden, weight, torch.full_like(targets, -1))
    loss.backward()
    assert loss.item() == 0
    assert weight.grad.abs().max() == 0


def test_huge_logits_stay_finite():
    hidden, weight, targets = case()
    loss = head_loss(hidden * 1e4, weight, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(hidden.grad).all()


def test_cap_keeps_full_precision():
    logits = torch.tensor([100.0, 14.0, 0.5], dtype=torch.bfloat16)
    capped = softcap(logits)
    assert capped.dtype == torch.float32
    torch.testing.assert_close(capped, 15 * torch.tanh(logits.float() / 15))
