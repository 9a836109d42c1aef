"""bf16 to fp8 in both layouts, in one pass: the operators below.

fp8 (Micikevicius et al. 2022, arXiv 2209.05433): e4m3 for weights and activations, e5m2 for gradients. A product by
`torch._scaled_mm` wants its first operand row-major and its second column-major, and the three products of a linear use each
operand once along each of its dimensions: so each tile is read once and written as it lies and transposed.

The scale of a tensor is a power of two, hence exact both ways. It follows from the largest magnitude of the step *before*
(delayed scaling, same paper), so that one pass is enough; that pass also notes the magnitude for the next step. Without one
(0: the first step, or all was zero) a first pass over the tensor finds it; the GPU itself decides that, no one waits for it.
What outgrew its scale saturates. NaN and infinity stay NaN, then and in the next step: a diverged run shows in its loss.

Magnitudes live in `before` and `now`, fp32 (R,), one row for each tensor of the model that is quantized; `before` is only
read here. Those of gradients are returned instead, so that a backward pass changes nothing but gradients. On CUDA the work is Triton's, elsewhere the twin's, in plain torch; they agree bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.kernels.fp8_format import E4M3, E5M2, Format

SMALLEST = 2.0**-100  # magnitudes below it count as this, so that neither scale nor inverse leaves fp32


@torch.library.custom_op("nanochat::quantize", mutates_args=("now",))
def quantize(x: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (M, N), contiguous, float: in e4m3 (M, N), that transposed (N, M), and what undoes the scale, fp32 ()."""
    return _run("plain", x, x, before, row, now, row, E4M3)


@torch.library.custom_op("nanochat::quantize_gradient", mutates_args=())
def quantize_gradient(x: Tensor, before: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same in e5m2, and the largest magnitude of x, fp32 (1,)."""
    now = before.new_zeros(1)
    return *_run("plain", x, x, before, row, now, 0, E5M2), now


@torch.library.custom_op("nanochat::relu2_quantize", mutates_args=("now",))
def relu2_quantize(h: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """relu(h)^2 in e4m3 (M, N), and what undoes its scale. h (M, N), contiguous."""
    x8, _, inverse = _run("relu2", h, h, before, row, now, row, E4M3)
    return x8, inverse


@torch.library.custom_op("nanochat::relu2_quantize_gradient", mutates_args=())
def relu2_quantize_gradient(
    grad: Tensor, h: Tensor, act_inverse: Tensor, before: Tensor, row: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`quantize_gradient` of h's gradient, made from `grad`, that of relu(h)^2.

    And last relu(h)^2 itself again in e4m3, transposed (N, M), at the scale `act_inverse` undoes: made where h is read anyway,
    it need not be kept from the forward pass.
    """
    now = before.new_zeros(1)
    if grad.is_cuda:
        x8, x8t, inverse, act8t = _triton("relu2_grad", grad, h, before, row, now, 0, E5M2, act_inverse)
    else:
        x8, x8t, inverse = _twin(2.0 * grad.float() * _relu(h), before, row, now, 0, E5M2)
        act8t = cast(_relu(h).square(), act_inverse.reciprocal(), E4M3).t().contiguous()
    return x8, x8t, inverse, now, act8t


@quantize.register_fake
def _(x: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, E4M3)


@quantize_gradient.register_fake
def _(x: Tensor, before: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *_outputs(x, E5M2), before.new_empty(1)


@relu2_quantize.register_fake
def _(h: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor]:
    x8, _, inverse = _outputs(h, E4M3)
    return x8, inverse


@relu2_quantize_gradient.register_fake
def _(grad: Tensor, h: Tensor, act_inverse: Tensor, before: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return *_outputs(grad, E5M2), before.new_empty(1), _outputs(grad, E4M3)[1]


def scales(seen: Tensor, fmt: Format) -> tuple[Tensor, Tensor]:
    """The power of two that puts a magnitude in [2^exponent, 2^(exponent + 1)), and its inverse; NaN if it is infinite."""
    exponent = seen.clamp(min=SMALLEST).view(torch.int32) >> 23  # biased: fp32's own
    scale = ((254 + fmt.exponent - exponent) << 23).view(torch.float32)
    inverse = ((exponent - fmt.exponent) << 23).view(torch.float32)
    return scale, torch.where(seen < float("inf"), inverse, float("nan"))


def cast(value: Tensor, scale: Tensor, fmt: Format) -> Tensor:
    """fp32 to fp8: scaled, saturated, rounded to nearest even; what is not finite becomes NaN."""
    y = (value * scale).clamp(-fmt.limit, fmt.limit)
    return torch.where(value.abs() < float("inf"), y, float("nan")).to(fmt.dtype)


# -- the two sides --


def _run(
    kind: str, x: Tensor, h: Tensor, before: Tensor, row: int, now: Tensor, now_row: int, fmt: Format
) -> tuple[Tensor, Tensor, Tensor]:
    if x.is_cuda:
        return _triton(kind, x, h, before, row, now, now_row, fmt)[:3]
    return _twin(_relu(x).square() if kind == "relu2" else x.float(), before, row, now, now_row, fmt)


def _twin(value: Tensor, before: Tensor, row: int, now: Tensor, now_row: int, fmt: Format) -> tuple[Tensor, Tensor, Tensor]:
    seen = torch.where(value.abs() < float("inf"), value.abs(), float("inf")).max()
    now[now_row] = torch.maximum(now[now_row], seen)
    scale, inverse = scales(torch.where(before[row] > 0, before[row], now[now_row]), fmt)
    x8 = cast(value, scale, fmt)
    return x8, x8.t().contiguous(), inverse


def _triton(
    kind: str,
    x: Tensor,
    h: Tensor,
    before: Tensor,
    row: int,
    now: Tensor,
    now_row: int,
    fmt: Format,
    act_inverse: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from nanochat.kernels import quantize_triton  # where there is no GPU there may be no Triton

    x8, x8t, inverse = _outputs(x, fmt)
    act8t = _outputs(x, E4M3)[1] if kind == "relu2_grad" else x8t
    if kind == "relu2":
        x8t = act8t = x8  # not written
    quantize_triton.launch(
        kind,
        x,
        h,
        x8,
        x8t,
        inverse,
        before,
        row,
        now,
        now_row,
        act8t,
        inverse if act_inverse is None else act_inverse,
        fmt,
        E4M3,
    )
    return x8, x8t, inverse, act8t


def _outputs(x: Tensor, fmt: Format) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = x.shape
    x8 = x.new_empty(rows, columns, dtype=fmt.dtype)
    return x8, x.new_empty(columns, rows, dtype=fmt.dtype), x.new_empty((), dtype=torch.float32)


def _relu(h: Tensor) -> Tensor:
    return torch.where(h <= 0, 0.0, h.float())  # not clamp: NaN stays
