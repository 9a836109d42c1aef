"""Casts from bf16 to fp8 in one pass, written both as is and transposed.

fp8 (Micikevicius et al. 2022, arXiv 2209.05433): e4m3 for weights and activations, e5m2 for gradients. `torch._scaled_mm` takes
its first operand row-major and its second column-major, and the three products of a linear use each operand once along each of
its dimensions. So each tile is read once and written twice: as it lies, and transposed.

Each tensor has one scale. It is a power of two, so scaling and its inverse are exact. It is computed from the tensor's
largest magnitude in the *previous* optimizer step (delayed scaling, same paper), so one pass is enough; that pass also
records the magnitude for the next step. Without a previous magnitude (0: the first step, or an all-zero tensor) an extra
pass over the tensor finds it first; the GPU decides this itself, with no synchronisation. Values that outgrew the scale
saturate. NaN and infinity become NaN, in this step and throughout the next one, so that a diverged run shows in its loss.

Magnitudes live in `before` (previous step) and `now` (this step), fp32 (R,), one row per quantized tensor of the model. This
module only reads `before`. The magnitudes of gradients are returned instead of written to `now`, so that a backward pass has no
side effect besides gradients. CUDA runs the Triton kernels, other devices the reference implementation in plain torch; the two
agree bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nanochat.kernels.fp8_format import E4M3, E5M2, Format

SMALLEST = 2.0**-100  # smaller magnitudes are raised to this, so that the scale and its inverse stay in fp32's range


@torch.library.custom_op("nanochat::quantize", mutates_args=("now",))
def quantize(x: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (M, N), contiguous, any float type, to (x in e4m3 (M, N), its transpose (N, M), the inverse of the scale fp32 ()).

    `row` is this tensor's row in `before` and `now`; now[row] is raised to the largest magnitude of x.
    """
    return _run("plain", x, x, before, row, now, row, E4M3)


@torch.library.custom_op("nanochat::quantize_gradient", mutates_args=())
def quantize_gradient(x: Tensor, before: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Like `quantize` but in e5m2, and with a fourth result: the largest magnitude of x, fp32 (1,)."""
    now = before.new_zeros(1)
    return *_run("plain", x, x, before, row, now, 0, E5M2), now


@torch.library.custom_op("nanochat::relu2_quantize", mutates_args=("now",))
def relu2_quantize(h: Tensor, before: Tensor, now: Tensor, row: int) -> tuple[Tensor, Tensor]:
    """h (M, N), contiguous, to (relu(h)^2 in e4m3 (M, N), the inverse of its scale fp32 ()). `row` as for `quantize`."""
    x8, _, inverse = _run("relu2", h, h, before, row, now, row, E4M3)
    return x8, inverse


@torch.library.custom_op("nanochat::relu2_quantize_gradient", mutates_args=())
def relu2_quantize_gradient(
    grad: Tensor, h: Tensor, act_inverse: Tensor, before: Tensor, row: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`quantize_gradient` of the gradient of h, which is computed here from `grad`, the gradient of relu(h)^2.

    A fifth result is relu(h)^2 in e4m3, transposed (N, M), at the scale whose inverse is `act_inverse`. This pass reads h
    anyway, so recomputing it is cheaper than keeping it from the forward pass.
    """
    now = before.new_zeros(1)
    if grad.is_cuda:
        x8, x8t, inverse, act8t = _triton("relu2_grad", grad, h, before, row, now, 0, E5M2, act_inverse)
    else:
        x8, x8t, inverse = _reference(2.0 * grad.float() * _relu(h), before, row, now, 0, E5M2)
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
    """The power of two that scales the magnitude `seen` into [2^exponent, 2^(exponent + 1)), and its inverse.

    `seen` and both results are fp32 (). The inverse is NaN if `seen` is infinite.
    """
    exponent = seen.clamp(min=SMALLEST).view(torch.int32) >> 23  # fp32's biased exponent
    scale = ((254 + fmt.exponent - exponent) << 23).view(torch.float32)
    inverse = ((exponent - fmt.exponent) << 23).view(torch.float32)
    return scale, torch.where(seen < float("inf"), inverse, float("nan"))


def cast(value: Tensor, scale: Tensor, fmt: Format) -> Tensor:
    """fp32 to fp8: scaled, saturated, rounded to nearest even. Infinity and NaN become NaN."""
    y = (value * scale).clamp(-fmt.limit, fmt.limit)
    return torch.where(value.abs() < float("inf"), y, float("nan")).to(fmt.dtype)


# -- the two implementations --


def _run(
    kind: str, x: Tensor, h: Tensor, before: Tensor, row: int, now: Tensor, now_row: int, fmt: Format
) -> tuple[Tensor, Tensor, Tensor]:
    if x.is_cuda:
        return _triton(kind, x, h, before, row, now, now_row, fmt)[:3]
    return _reference(_relu(x).square() if kind == "relu2" else x.float(), before, row, now, now_row, fmt)


def _reference(
    value: Tensor, before: Tensor, row: int, now: Tensor, now_row: int, fmt: Format
) -> tuple[Tensor, Tensor, Tensor]:
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
    from nanochat.kernels import quantize_triton  # here, because without a GPU Triton may not be installed

    x8, x8t, inverse = _outputs(x, fmt)
    act8t = _outputs(x, E4M3)[1] if kind == "relu2_grad" else x8t
    if kind == "relu2":
        x8t = act8t = x8  # placeholders: the kernel writes neither
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
    return torch.where(h <= 0, 0.0, h.float())  # where, not clamp: keeps NaN
