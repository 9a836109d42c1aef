"""The weight gradient's kernel equals plain torch: on a GPU if there is one, otherwise in Triton's interpreter."""

import pytest
import torch

from nanochat.kernels import weight_grad_triton
from nanochat.kernels.weight_grad import add_weight_grad
from nanochat.kernels.weight_grad_triton import splits

# The interpreter runs 4 programs. Cases: 4 whole tiles; 6 tiles, the last 2 split in 2; 1 tile split in 4; partial tiles twice.
SHAPES = [(256, 256, 512), (256, 384, 512), (512, 128, 256), (200, 136, 264), (64, 8, 16)]


def launch(grad, dy, x):
    (add_weight_grad if grad.is_cuda else weight_grad_triton.launch)(grad, dy, x)


@pytest.mark.parametrize(("tokens", "outputs", "inputs"), SHAPES)
def test_adds_to_the_existing_gradient(device, tokens, outputs, inputs):
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float16  # the interpreter cannot multiply bf16
    both = torch.randn(tokens, outputs + 8, device=device, dtype=dtype)
    dy, x = both[:, 8:], torch.randn(tokens, inputs, device=device, dtype=dtype)  # dy is a slice of a wider gradient
    grad = torch.randn(outputs, inputs, device=device)
    expected = grad.double() + dy.double().T @ x.double()
    launch(grad, dy, x)
    assert (grad - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: the interpreter runs its programs one after another"
)
@pytest.mark.parametrize(("outputs", "inputs"), [(5120, 1280), (1280, 5120), (1280, 1280), (2560, 1280), (1000, 520)])
def test_result_is_deterministic(outputs, inputs):
    torch.manual_seed(0)
    dy, x = (torch.randn(8192, n, device="cuda", dtype=torch.bfloat16) for n in (outputs, inputs))
    start = torch.randn(outputs, inputs, device="cuda")
    results = []
    for _ in range(5):
        grad = start.clone()
        for _ in range(3):
            add_weight_grad(grad, dy, x)
        results.append(grad)
    assert all(torch.equal(results[0], other) for other in results)
    expected = start + 3 * (dy.float().T @ x.float())
    assert (results[0] - expected).norm() <= 1e-3 * expected.norm()


def test_splits_fill_the_last_round():
    assert splits(0, 132) == splits(132, 132) == splits(264, 132) == 1
    for tiles, parts in ((50, 5), (100, 5), (200, 3)):  # numbers of 128 x 256 tiles in d20's weights
        assert splits(tiles, 132) == parts
        whole, rest = divmod(tiles, 132)
        assert whole + -(-rest * parts // 132) / parts < 1.11 * tiles / 132
