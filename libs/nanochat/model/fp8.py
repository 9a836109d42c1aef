"""The linears of the blocks in fp8, for training on Hopper: applied from outside, the model and its parameters stay as they are.

The three products of a linear (y = x wᵀ, dx = dy w, dw = dyᵀ x) run as `torch._scaled_mm` on operands that `nanochat::quantize`
makes: e4m3 for x and w, e5m2 for dy, one scale a tensor, delayed by one optimizer step (formats and scaling: Micikevicius et
al. 2022, arXiv 2209.05433). Results are bf16. For the backward pass the transposed fp8 operands are kept, not x: half the
bytes; the MLP keeps its bf16 pre-activation and makes relu(h)^2 again from it. Without gradients (evaluation, sampling, the
engine) the products are bf16, as without this file.

    state = fp8.apply(model)    # once, when the model is on its device and before it is compiled
    ... forward, backward ...
    state.roll()                # at each optimizer step; waits for nothing
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

MULTIPLE = 16  # of every dimension, or the tensor cores do not take the operand
# Hopper's fast accumulation keeps about 14 bits of a sum. That does for the sums over features; dw sums over every token of the
# batch (65,536 at 32 x 2048), where what it cuts off would add up.
FAST_FORWARD, FAST_GRAD_INPUT, FAST_GRAD_WEIGHT = True, True, False


def apply(model: GPT) -> Magnitudes:
    """Let the blocks' products run in fp8 from now on, wherever gradients are wanted. The head and the embedding stay.

    The model must be on its device. Parameters and `state_dict()` stay what they were. A matrix of which a side is no multiple
    of 16 stays bf16, as do all products of a batch whose tokens are not; `unfit(model)` names such matrices.
    """
    users = [module for module in model.blocks.modules() if isinstance(module, Linear | Attention)]
    magnitudes = Magnitudes(len(users), model.get_device())
    index = {user: number for number, user in enumerate(users)}
    for module in model.blocks.modules():
        if isinstance(module, Linear):
            module.product = Product(magnitudes, index[module])
        elif isinstance(module, Attention):
            module.products = Products(magnitudes, index[module], index[module.v])
        elif isinstance(module, MLP):
            module.function = Relu2MLP(magnitudes, index[module.up], index[module.down])
    return magnitudes


def supported(device: torch.device) -> bool:
    """Whether the device multiplies fp8 matrices: Ada, Hopper and what came after."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 9)


def unfit(model: GPT) -> list[str]:
    """The matrices of the blocks that stay bf16, because a side of theirs is no multiple of 16."""
    sizes = ((name, param.shape) for name, param in model.blocks.named_parameters() if param.ndim == 2)
    return [f"blocks.{name} {tuple(shape)}" for name, shape in sizes if any(size % MULTIPLE for size in shape)]


class Magnitudes:
    """The largest magnitude of every tensor that is quantized: x, weight and output gradient of each product.

    `before` is of the last optimizer step and gives the scales; 0 where there is none. `seen` grows in the forward pass.
    Gradients report theirs as the gradient of `probe`, a leaf of zeros, because that is what a compiled backward pass hands
    out; autograd adds up those of the micro-steps, an upper bound, for which their format has range to spare.
    """

    def __init__(self, products: int, device: torch.device):
        rows = 3 * products
        self.before, self.seen = torch.zeros(rows, device=device), torch.zeros(rows, device=device)
        self.probe = torch.zeros(rows, device=device, requires_grad=True)
        self.probe.grad = torch.zeros_like(self.before)

    @torch.no_grad()
    def roll(self) -> None:
        """The step is over: what was seen in it gives the scales of the next. No synchronisation."""
        torch.maximum(self.seen, self._seen_grads, out=self.before)
        self._forget()

    def state(self) -> Tensor:
        """All a checkpoint needs between two steps: fp32 (3 x products,), a copy."""
        return self.before.clone()

    def load_state(self, state: Tensor) -> None:
        """Go on from `state()`. Raises ValueError when it is of another model."""
        if state.shape != self.before.shape:
            raise ValueError(f"fp8 state of {state.numel()} magnitudes does not fit the {self.before.numel()} of this model")
        self.before.copy_(state)
        self._forget()

    @property
    def _seen_grads(self) -> Tensor:
        grad = self.probe.grad
        assert grad is not None
        return grad

    def _forget(self) -> None:
        self.seen.zero_()
        self._seen_grads.zero_()


class Products:
    """x (..., K) times each weight (N, K) transposed, as `linears` does it, in fp8 where a gradient is wanted. x is cast once;
    its magnitude is kept with the first weight's."""

    def __init__(self, magnitudes: Magnitudes, *indices: int):
        self.magnitudes, self.rows = magnitudes, tuple(3 * index for index in indices)

    def __call__(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if not (torch.is_grad_enabled() and all(fits(x, weight) for weight in weights)):
            return linears(x, *weights)
        m = self.magnitudes
        probes = [m.probe[row + 2 : row + 3] for row in self.rows]
        ys = _Products.apply(_rows(x), m.before, m.seen, self.rows, *(weight.contiguous() for weight in weights), *probes)
        return tuple(y.to(x.dtype).view(*x.shape[:-1], y.size(-1)) for y in ys)


class Product(Products):
    """The same of one weight, as `F.linear` does it."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, weight)[0]


class Relu2MLP:
    """x (..., C) through `up` (H, C), relu(.)^2 and `down` (C, H). The function between is fused with its cast, both ways."""

    def __init__(self, magnitudes: Magnitudes, up: int, down: int):
        self.magnitudes, self.up, self.down = magnitudes, 3 * up, 3 * down

    def __call__(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and fits(x, up) and fits(x, down)):
            return F.linear(relu_squared(F.linear(x, up)), down)
        m = self.magnitudes
        probes = m.probe[self.up + 2 : self.up + 3], m.probe[self.down + 2 : self.down + 3]
        y: Tensor = _Relu2MLP.apply(_rows(x), up.contiguous(), down.contiguous(), m.before, m.seen, *probes, self.up, self.down)
        return y.to(x.dtype).view(*x.shape[:-1], y.size(-1))


def fits(x: Tensor, weight: Tensor) -> bool:
    """Whether rows of x, K and N are multiples of 16. A product that does not fit stays bf16."""
    return (x.numel() // x.size(-1)) % MULTIPLE == 0 and all(size % MULTIPLE == 0 for size in weight.shape)


# -- the products --
#
# `_scaled_mm` wants its first operand row-major and its second column-major, so with row-major tensors it makes a @ b.T: the
# name of each operand below says which dimension lies contiguous last.


def _matmul(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], fast: bool) -> Tensor:
    """a (M, K) times b (N, K) transposed, each with what undoes its scale; bf16 (M, N)."""
    if not a[0].is_cuda:  # the twin; a CPU's own `_scaled_mm` gives the same, many times slower
        y = a[0].float() @ b[0].float().t() * (a[1] * b[1])
        return y if y.dtype is torch.bfloat16 else y.bfloat16()  # autocast may have made it that; see below
    return torch._scaled_mm(a[0], b[0].t(), scale_a=a[1], scale_b=b[1], out_dtype=torch.bfloat16, use_fast_accum=fast)


# Nothing in a forward below may return its own input, as `.to(dtype)` and `.contiguous()` may: torch.compile (2.11) hands out
# every intermediate of such a function, and of two names for one tensor the second, unused, makes the gradient zero.


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, before: Tensor, seen: Tensor, rows: tuple[int, ...], *rest: Tensor) -> tuple[Tensor, ...]:
        """`rest` are as many weights as `rows`, and then their probes."""
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
        dxs, dws, mosts = [], [], []
        for grad, row, w8t, w_inv in zip(grads, ctx.rows, narrow[::2], narrow[1::2], strict=True):
            dy8, dy8t, dy_inv, most = quantize_gradient(grad.contiguous(), before, row + 2)
            dxs.append(_matmul((dy8, dy_inv), (w8t, w_inv), FAST_GRAD_INPUT))
            dws.append(_matmul((dy8t, dy_inv), (x8t, x_inv), FAST_GRAD_WEIGHT).to(weight_dtype))
            mosts.append(most)
        return sum(dxs[1:], start=dxs[0]).to(x_dtype), None, None, None, *dws, *mosts


class _Relu2MLP(torch.autograd.Function):
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
        dy8, dy8t, dy_inv, dy_most = quantize_gradient(grads[0].contiguous(), before, ctx.down_row + 2)
        da = _matmul((dy8, dy_inv), (down8t, down_inv), FAST_GRAD_INPUT)
        dh8, dh8t, dh_inv, dh_most, a8t = relu2_quantize_gradient(da, h, a_inv, before, ctx.up_row + 2)
        d_down = _matmul((dy8t, dy_inv), (a8t, a_inv), FAST_GRAD_WEIGHT)
        dx = _matmul((dh8, dh_inv), (up8t, up_inv), FAST_GRAD_INPUT)
        d_up = _matmul((dh8t, dh_inv), (x8t, x_inv), FAST_GRAD_WEIGHT)
        types = ctx.dtypes
        return dx.to(types[0]), d_up.to(types[1]), d_down.to(types[2]), None, None, dh_most, dy_most, None, None


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.size(-1)).contiguous()
