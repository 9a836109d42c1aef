"""The functions that save their output for the backward pass agree with torch's own, which save their input."""

import pytest
import torch

from nanochat import kernels
from nanochat.model.layers import norm, relu_squared


@pytest.mark.parametrize("function", [norm, relu_squared])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_agrees_with_the_plain_function(function, dtype, tolerance):
    torch.manual_seed(0)
    x = (torch.randn(5, 64) * 3).to(dtype).requires_grad_()
    upstream = torch.randn(5, 64).to(dtype)
    with kernels.plain():
        expected = function(x)
        (expected_grad,) = torch.autograd.grad(expected, x, upstream)
    actual = function(x)
    (grad,) = torch.autograd.grad(actual, x, upstream)
    assert actual.dtype == grad.dtype == dtype
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    assert (grad - expected_grad).norm() <= tolerance * expected_grad.norm()


def test_the_input_is_not_saved():
    x = torch.randn(5, 64, requires_grad=True)
    for function in (norm, relu_squared):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t) or t, lambda t: t):
            y = function(x)
        assert all(t is y or t.numel() < x.numel() or torch.equal(t, y) for t in saved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_gradients_are_the_same(dtype):
    torch.manual_seed(0)
    x, weight = torch.randn(5, 16, dtype=dtype), torch.randn(16, 16, dtype=dtype, requires_grad=True)

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return norm(relu_squared(norm(x @ weight)) @ weight)[:, :3].float().sum()

    (expected,) = torch.autograd.grad(loss(weight), weight)
    (actual,) = torch.autograd.grad(torch.compile(loss, backend="aot_eager")(weight), weight)
    assert expected.abs().max() > 0
    torch.testing.assert_close(actual, expected)
