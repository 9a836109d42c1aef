"""The gradients of the blocks' weights added where the optimizer keeps them, by the kernel that computes them.

Autograd would make each in bf16, widen it, and add it in one more pass. Applied from outside, as fp8 is; without gradients,
and within `kernels.plain()`, products are what they are without this file.

    accumulate.apply(model)    # once, when the optimizer has given every weight its place for a gradient
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function

from nanochat import kernels
from nanochat.kernels.weight_grad import MULTIPLE, add_weight_grad
from nanochat.model.attention import Attention
from nanochat.model.gpt import GPT, MLP
from nanochat.model.layers import Linear, linears, relu_squared


def apply(model: GPT) -> None:
    """From now on, until the weights' `grad` is replaced. Weights with a side that is no multiple of 8 stay as they are."""
    for module in model.blocks.modules():
        if isinstance(module, Attention) and _fits(module.q.weight, module.k.weight, module.v.weight):
            module.products = Products((module.q.weight, module.k.weight), (module.v.weight,))
        elif isinstance(module, MLP) and _fits(module.up.weight, module.down.weight):
            module.function = MLPFunction(Product(module.up.weight), Product(module.down.weight))
        elif isinstance(module, Linear) and _fits(module.weight):
            module.product = Product(module.weight)


class Products:
    """x (..., K) times each weight (N, K) transposed, as `linears` does it. Each of `weights` is what one's rows consist of."""

    def __init__(self, *weights: tuple[Tensor, ...]):
        self.grads = [_place(part) for parts in weights for part in parts]

    def __call__(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if not kernels.training() or (x.is_cuda and not kernels.usable(x)):
            return linears(x, *weights)
        ys = _Products.apply(x.flatten(0, -2), len(weights), *(weight.detach() for weight in weights), *self.grads)
        return tuple(y.view(*x.shape[:-1], y.size(-1)) for y in ys)


class Product(Products):
    """The same of one weight, as `F.linear` does it."""

    def __init__(self, weight: Tensor):
        super().__init__((weight,))

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, weight)[0]


class MLPFunction:
    """x (..., C) through `up` (H, C), relu(.)^2 and `down` (C, H), fused where kernels are."""

    def __init__(self, up: Product, down: Product):
        self.up, self.down = up, down

    def __call__(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        if kernels.usable(x):
            grads = *self.up.grads, *self.down.grads
            y: Tensor = kernels.mlp.FusedMLP.apply(x.flatten(0, -2), up.detach(), down.detach(), *grads)
            return y.view_as(x)
        return self.down(relu_squared(self.up(x, up)), down)


class _Products(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, *rest: Tensor) -> tuple[Tensor, ...]:
        """`rest` are `count` weights, and then the places for gradients, side by side as the weights' rows."""
        weights = [weight if weight.dtype == x.dtype else weight.to(x.dtype) for weight in rest[:count]]
        ctx.save_for_backward(x, *weights, *rest[count:])
        ctx.count = count
        return tuple(x @ weight.T for weight in weights)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        weights, places = rest[: ctx.count], iter(rest[ctx.count :])
        dys = [dy.contiguous() for dy in upstream]
        for dy in dys:
            row = 0
            while row < dy.size(1):
                place = next(places)
                add_weight_grad(place, dy[:, row : row + place.size(0)], x)
                row += place.size(0)
        dxs = [dy @ weight for dy, weight in zip(dys, weights, strict=True)]
        return sum(dxs[1:], start=dxs[0]), None, *(None for _ in rest)


def _place(weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise ValueError("the weight has no gradient to add to: make the optimizer first")
    return weight.grad.data  # as a tensor of its own: autograd minds when one that a forward pass saved was changed since


def _fits(*weights: Tensor) -> bool:
    return all(size % MULTIPLE == 0 for weight in weights for size in weight.shape)
