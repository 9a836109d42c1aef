"""The embedding gradient's kernel equals plain torch: on a GPU if there is one, otherwise in Triton's interpreter."""

import pytest
import torch

from nanochat.kernels import embedding_grad_triton
from nanochat.kernels.embedding_grad import add_embedding_grad


def case(device, channels):
    torch.manual_seed(0)
    ids = torch.tensor([3, 0, 3, 3, 9, 5, 0], device=device)  # some rows repeat, some are never used
    dy = torch.randn(len(ids), channels, device=device, dtype=torch.bfloat16)
    grad = torch.randn(10, channels, device=device)
    expected = grad.double().index_add_(0, ids, dy.double())
    return grad, ids, dy, expected


@pytest.mark.parametrize("channels", [8, 520, 1280])
def test_rows_are_added_to_the_existing_gradient(device, channels):
    grad, ids, dy, expected = case(device, channels)
    (add_embedding_grad if grad.is_cuda else embedding_grad_triton.launch)(grad, ids, dy)
    torch.testing.assert_close(grad.double(), expected, rtol=1e-5, atol=1e-5)


def test_deterministic_mode_adds_in_a_fixed_order(device):
    start, ids, dy, expected = case(device, 64)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        results = []
        for _ in range(5):
            results.append(start.clone())
            add_embedding_grad(results[-1], ids, dy)
    finally:
        torch.use_deterministic_algorithms(before)
    torch.testing.assert_close(results[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(results[0], other) for other in results)
