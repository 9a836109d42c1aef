"""Runs the linears of the blocks in fp8 while training on Hopper. Applied from outside: model and parameters stay as they are.

A linear has three matrix products: y = x wᵀ, dx = dy w and dw = dyᵀ x. Each runs as `torch._scaled_mm` and gives bf16. The
operator `nanochat::quantize` prepares the operands: e4m3 for x and w, e5m2 for dy, one scale per tensor, delayed by one
optimizer step (formats and scaling: Micikevicius et al. 2022, arXiv 2209.05433).

The forward pass saves the transposed fp8 operands for the backward pass instead of x: half the bytes. The MLP saves its bf16
pre-activation h and recomputes relu(h)^2 from it. With gradients disabled (evaluation, sampling, the engine) products stay
bf16.

    magnitudes = fp8.apply(model)    # once, after the model is on its device and before it is compiled
    ... forward, backward ...
    magnitudes.roll()                # at each optimizer step; does not synchronise
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.kernels.quantize import quantize, quantize_gradient, relu2_quantize, relu2_quantize_gradient
from nanochat.model.attention import Attention
from nanochat.model.gpt import GPT, MLP
from nanochat.model.layers import Linear, linears, relu_squared

MULTIPLE = 16  # the tensor cores accept only operands whose dimensions are all multiples of it
# Hopper's fast accumulation keeps about 14 bits of a sum. That is enough for sums over features. dw sums over every token
# of the batch (65,536 at 32 x 2048), where the error would grow too large.
FAST_FORWARD, FAST_GRAD_INPUT, FAST_GRAD_WEIGHT = True, True, False


def apply(model: GPT) -> Magnitudes:
    """Run the blocks' matrix products in fp8 from now on, wherever gradients are enabled. Head and embeddings stay as they are.

    The model must already be on its device. Parameters and `state_dict()` do not change. A matrix with a side that is not a
    multiple of 16 stays bf16 (`unfit(model)` lists these), and so do all products of a batch whose token count is not.
    """
    users = [module for module in model.blocks.modules() if isinstance(module, Linear | Attention)]
    magnitudes = Magnitudes(len(users), model.get_device())
    index = {user: number for number, user in enumerate(users)}
    for module in model.blocks.modules():
        if isinstance(module, Linear):
            module.matmul = Fp8Linear(magnitudes, index[module])
        elif isinstance(module, Attention):
            module.matmuls = Fp8Linears(magnitudes, index[module], index[module.v])
        elif isinstance(module, MLP):
            module.implementation = Fp8MLP(magnitudes, index[module.up], index[module.down])
    return magnitudes


def supported(device: torch.device) -> bool:
    """Whether the device can multiply fp8 matrices: Ada, Hopper or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def unfit(model: GPT) -> list[str]:
    """The names and shapes of the blocks' matrices that stay bf16, because a side is not a multiple of 16."""
    sizes = ((name, param.shape) for name, param in model.blocks.named_parameters() if param.ndim == 2)
    return [f"blocks.{name} {tuple(shape)}" for name, shape in sizes if any(size % MULTIPLE for size in shape)]


class Magnitudes:
    """The largest magnitudes of the tensors that are quantized: three rows per linear, for x, the weight and the output
    gradient.

    `before` holds those of the previous optimizer step, from which the scales follow; 0 means unknown. The forward pass
    raises `seen`. The backward pass reports its magnitudes as the gradient of `probe`, a leaf of zeros, because a compiled
    backward pass can return nothing but gradients. Autograd sums them over the micro-steps; the sum is an upper bound, for
    which e5m2 has range to spare.
    """

    def __init__(self, products: int, device: torch.device):
        rows = 3 * products
        self.before, self.seen = torch.zeros(rows, device=device), torch.zeros(rows, device=device)
        self.probe = torch.zeros(rows, device=device, requires_grad=True)
        self.probe.grad = torch.zeros_like(self.before)

    @torch.no_grad()
    def roll(self) -> None:
        """End the optimizer step: the magnitudes seen in it give the scales of the next. Does not synchronise."""
        torch.maximum(self.seen, self._seen_grads, out=self.before)
        self.seen.zero_()
        self._seen_grads.zero_()

    @property
    def _seen_grads(self) -> Tensor:
        grad = self.probe.grad
        assert grad is not None
        return grad


class Fp8Linears:
    """(x, *weights) -> x times each weight transposed, like `linears`, in fp8 where gradients are enabled. x (..., K),
    weights (N, K).

    x is quantized once; its magnitude is stored in the row of the first weight.
    """

    def __init__(self, magnitudes: Magnitudes, *indices: int):
        self.magnitudes, self.rows = magnitudes, tuple(3 * index for index in indices)

    def __call__(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if not (torch.is_grad_enabled() and all(fits(x, weight) for weight in weights)):
            return linears(x, *weights)
        m = self.magnitudes
        probes = [m.probe[row + 2 : row + 3] for row in self.rows]
        ys = _LinearsFunction.apply(
            _rows(x), m.before, m.seen, self.rows, *(weight.contiguous() for weight in weights), *probes
        )
        return tuple(y.to(x.dtype).view(*x.shape[:-1], y.size(-1)) for y in ys)


class Fp8Linear(Fp8Linears):
    """(x, weight) -> x times weight transposed, like `F.linear`."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, weight)[0]


class Fp8MLP:
    """(x, up, down) -> down(relu(up(x))^2). x (..., C), up (H, C), down (C, H). relu^2 is fused with its cast, both ways."""

    def __init__(self, magnitudes: Magnitudes, up: int, down: int):
        self.magnitudes, self.up, self.down = magnitudes, 3 * up, 3 * down

    def __call__(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and fits(x, up) and fits(x, down)):
            return F.linear(relu_squared(F.linear(x, up)), down)
        m = self.magnitudes
        probes = m.probe[self.up + 2 : self.up + 3], m.probe[self.down + 2 : self.down + 3]
        y: Tensor = _MLPFunction.apply(
            _rows(x), up.contiguous(), down.contiguous(), m.before, m.seen, *probes, self.up, self.down
        )
        return y.to(x.dtype).view(*x.shape[:-1], y.size(-1))


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether the row count of x and both sides of the weight (N, K) are multiples of 16. Otherwise the product stays bf16."""
    return (x.numel() // x.size(-1)) % MULTIPLE == 0 and all(size % MULTIPLE == 0 for size in weight.shape)


# -- the products --
#
# `_scaled_mm` takes its first operand row-major and its second column-major. With row-major tensors it therefore computes a
# @ b.T. The suffix `t` in the names below marks the transposed copy of a tensor, again row-major.


def _matmul(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], fast: bool) -> Tensor:
    """a (M, K) times b (N, K) transposed, as bf16 (M, N). Each operand comes with the inverse of its scale."""
    if not a[0].is_cuda:  # reference implementation; a CPU's own `_scaled_mm` gives the same result many times slower
        y = a[0].float() @ b[0].float().t() * (a[1] * b[1])
        return y if y.dtype is torch.bfloat16 else y.bfloat16()  # autocast may have converted it already; see below
    return torch._scaled_mm(a[0], b[0].t(), scale_a=a[1], scale_b=b[1], out_dtype=torch.bfloat16, use_fast_accum=fast)


# No forward below may return its own input, as `.to(dtype)` and `.contiguous()` can. torch.compile (2.11) returns every
# intermediate of such a function; if two names share one tensor, the second, unused one makes the gradient zero.


class _LinearsFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, seen: Tensor, rows: tuple[int, ...], *rest: Tensor) -> tuple[Tensor, ...]:
        """`rest` is one weight per element of `rows`, then one probe per weight."""
        weights = rest[: len(rows)]
        x8, x8t, x_inv = quantize(x, before, seen, rows[0])
        narrow = [quantize(weight, before, seen, row + 1) for weight, row in zip(weights, rows, strict=True)]
        ctx.save_for_backward(x8t, x_inv, before, *(tensor for _, w8t, w_inv in narrow for tensor in (w8t, w_inv)))
        ctx.rows = rows
        ctx.dtypes = x.dtype, weights[0].dtype
        return tuple(_matmul((x8, x_inv), (w8, w_inv), FAST_FORWARD) for w8, _, w_inv in narrow)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x8t, x_inv, before, *narrow = ctx.saved_tensors
        x_dtype, weight_dtype = ctx.dtypes
        dxs, dws, amaxes = [], [], []
        for grad, row, w8t, w_inv in zip(grads, ctx.rows, narrow[::2], narrow[1::2], strict=True):
            dy8, dy8t, dy_inv, amax = quantize_gradient(grad.contiguous(), before, row + 2)
            dxs.append(_matmul((dy8, dy_inv), (w8t, w_inv), FAST_GRAD_INPUT))
            dws.append(_matmul((dy8t, dy_inv), (x8t, x_inv), FAST_GRAD_WEIGHT).to(weight_dtype))
            amaxes.append(amax)
        return sum(dxs[1:], start=dxs[0]).to(x_dtype), None, None, None, *dws, *amaxes


class _MLPFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        up: Tensor,
        down: Tensor,
        before: Tensor,
        seen: Tensor,
        up_probe: Tensor,
        down_probe: Tensor,
        up_row: int,
        down_row: int,
    ) -> Tensor:
        x8, x8t, x_inv = quantize(x, before, seen, up_row)
        up8, up8t, up_inv = quantize(up, before, seen, up_row + 1)
        h = _matmul((x8, x_inv), (up8, up_inv), FAST_FORWARD)
        a8, a_inv = relu2_quantize(h, before, seen, down_row)
        down8, down8t, down_inv = quantize(down, before, seen, down_row + 1)
        ctx.save_for_backward(x8t, x_inv, up8t, up_inv, h, a_inv, down8t, down_inv, before)
        ctx.up_row, ctx.down_row = up_row, down_row
        ctx.dtypes = x.dtype, up.dtype, down.dtype
        return _matmul((a8, a_inv), (down8, down_inv), FAST_FORWARD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x8t, x_inv, up8t, up_inv, h, a_inv, down8t, down_inv, before = ctx.saved_tensors
        dy8, dy8t, dy_inv, dy_amax = quantize_gradient(grads[0].contiguous(), before, ctx.down_row + 2)
        da = _matmul((dy8, dy_inv), (down8t, down_inv), FAST_GRAD_INPUT)
        dh8, dh8t, dh_inv, dh_amax, a8t = relu2_quantize_gradient(da, h, a_inv, before, ctx.up_row + 2)
        d_down = _matmul((dy8t, dy_inv), (a8t, a_inv), FAST_GRAD_WEIGHT)
        dx = _matmul((dh8, dh_inv), (up8t, up_inv), FAST_GRAD_INPUT)
        d_up = _matmul((dh8t, dh_inv), (x8t, x_inv), FAST_GRAD_WEIGHT)
        types = ctx.dtypes
        return dx.to(types[0]), d_up.to(types[1]), d_down.to(types[2]), None, None, dh_amax, dy_amax, None, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.size(-1)).contiguous()
