"""The Triton casts equal the reference implementation bit for bit.

Without a GPU they run in Triton's interpreter, which cannot cast NaN to fp8; NaN is tested on a GPU only.
"""

from __future__ import annotations

import pytest
import torch

from nanochat.kernels import quantize as q

FORMATS = {"plain": (q.E4M3, q.E5M2), "relu2": (q.E4M3,), "relu2_grad": (q.E5M2,)}
CASES = [(kind, fmt) for kind, formats in FORMATS.items() for fmt in formats]


def both(kind, fmt, x, h, before):
    """Pairs (kernel, reference) of x8, x8t, inverse, `now` and relu(h)^2 in fp8; `now` starts at 0."""
    act_inverse = torch.tensor(2.0**-3, device=x.device)
    now, reference_now = torch.zeros(3, device=x.device), torch.zeros(3, device=x.device)
    x8, x8t, inverse, act8t = q._triton(kind, x, h, before, 1, now, 2, fmt, act_inverse if kind == "relu2_grad" else None)
    slope = q._relu(h)
    value = {"plain": x.float(), "relu2": q._relu(x).square(), "relu2_grad": 2.0 * x.float() * slope}[kind]
    reference = [
        *q._reference(value, before, 1, reference_now, 2, fmt),
        reference_now,
        q.cast(slope.square(), act_inverse.reciprocal(), q.E4M3).t(),
    ]
    kernel = [x8, x8t, inverse, now, act8t]
    wanted = {"plain": 4, "relu2": 4, "relu2_grad": 5}[kind]
    pairs = list(zip(kernel, reference, strict=True))[:wanted]
    return [pair for number, pair in enumerate(pairs) if not (kind == "relu2" and number == 1)]  # relu2 writes no transpose


def check(pairs):
    for kernel, reference in pairs:
        torch.testing.assert_close(kernel.float(), reference.float(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("kind", "fmt"), CASES)
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e15, 0.0], ids=["random", "tiny", "huge", "zero"])
@pytest.mark.parametrize("known", [0.0, 0.02], ids=["first step", "outgrown"])
def test_kernel_equals_reference(kind, fmt, size, known, device):
    torch.manual_seed(0)
    shape = (144, 80)  # one whole tile and three partial ones
    x = (torch.randn(shape) * torch.randn(shape).exp() ** 2 * size).to(device, torch.bfloat16)
    h = torch.randn(shape).to(device, torch.bfloat16)
    pairs = both(kind, fmt, x, h, torch.tensor([7.0, known * size, 5.0], device=device))
    check(pairs)
    assert pairs[0][0].float().isfinite().all()


def test_fp32_weights_and_ties(device):
    """Every e4m3 number, and the midpoint of each two neighbours, which rounds to even; subnormals included."""
    numbers = torch.arange(0, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middles = (numbers[1:] + numbers[:-1]) / 2
    x = torch.cat((numbers, -numbers, middles, -middles, torch.zeros(6))).reshape(-1, 16).contiguous().to(device)
    before = torch.tensor([0.0, 64.0, 0.0], device=device)  # a previous magnitude of 64 makes the scale 1
    check(both("plain", q.E4M3, x, x, before))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_become_nan(bad):
    """The value is NaN in fp8. In the next step, whose scale it would have determined, every value is."""
    x = torch.ones(16, 16)
    x[3, 5] = bad
    before, now = torch.ones(1), torch.zeros(1)
    x8, _, inverse = q.quantize(x, before, now, 0)
    assert x8.float().isnan().sum() == 1
    assert inverse.isfinite()
    assert q.quantize(torch.ones(16, 16), now, torch.zeros(1), 0)[2].isnan()


def test_scales_leave_room_to_grow():
    seen = torch.tensor([1e-30, 0.9, 1.0, 1.9, 3e30])
    for fmt, least in ((q.E4M3, 3.5), (q.E5M2, 14.0)):
        scale, inverse = q.scales(seen, fmt)
        room = fmt.limit / (seen * scale)
        assert ((room >= least) & (room <= 2 * least)).all()
        assert (scale * inverse == 1).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device: Triton's interpreter cannot cast NaN to fp8")
@pytest.mark.parametrize(("kind", "fmt"), CASES)
def test_kernel_equals_reference_on_the_gpu(kind, fmt):
    torch.manual_seed(0)
    x = torch.randn(4096, 1280, device="cuda", dtype=torch.bfloat16)
    h = torch.randn_like(x)
    check(both(kind, fmt, x, h, torch.tensor([7.0, 4.0, 5.0], device="cuda")))
    x[5, 7], h[1, 2], x[9, 9] = float("nan"), float("nan"), float("inf")
    check(both(kind, fmt, x, h, torch.tensor([7.0, 4.0, 5.0], device="cuda")))
    check(both(kind, fmt, x, h, torch.zeros(3, device="cuda")))
