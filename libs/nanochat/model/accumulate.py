"""What autograd would do for the weights of blocks and embeddings in each micro-step, done once a step or not at all.

The gradients are added where the optimizer keeps them, by the kernel that computes them: autograd would make each in bf16, widen
it, and add it in one more pass. The weights are narrowed when the optimizer has changed them: autocast would do it every time.
Applied from outside, as fp8 is; without gradients, and within `kernels.plain()`, all is as it is without this file.

    copies = accumulate.apply(model, torch.bfloat16)    # once, when every weight has its place for a gradient
    ... forward, backward, the optimizer's step ...
    copies.refresh()                                    # whenever weights have changed
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from nanochat import kernels
from nanochat.kernels.embedding_grad import add_embedding_grad
from nanochat.kernels.weight_grad import MULTIPLE, add_weight_grad
from nanochat.model.attention import Attention
from nanochat.model.gpt import GPT, MLP
from nanochat.model.layers import Embedding, Linear, linears, relu_squared


def apply(model: GPT, dtype: torch.dtype, *, products: bool = True) -> Copies:
    """Until the weights' `grad` is replaced, for inputs of `dtype`. Weights with a side that is no multiple of 8 stay as they are.

    Without `products` only embeddings are changed: for a model whose products are fp8's.
    """
    copies = Copies(dtype)
    for module in model.modules():
        if isinstance(module, Embedding):
            module.look_up = LookUp(module.weight, dtype)
    for module in model.blocks.modules() if products else ():
        if isinstance(module, Attention) and _fits(module.q.weight, module.k.weight, module.v.weight):
            module.products = Products(copies, (module.q.weight, module.k.weight), (module.v.weight,))
        elif isinstance(module, MLP) and _fits(module.up.weight, module.down.weight):
            module.function = MLPFunction(Product(copies, module.up.weight), Product(copies, module.down.weight))
        elif isinstance(module, Linear) and _fits(module.weight):
            module.product = Product(copies, module.weight)
    copies.refresh()
    return copies


class Copies:
    """The weights in the type of the products, each once."""

    def __init__(self, dtype: torch.dtype):
        self._dtype = dtype
        self._parts: dict[Tensor, Tensor] = {}  # a weight and its copy

    def of(self, *weights: Tensor) -> Tensor:
        """The copy of these weights, their rows one after another; empty until `refresh`. Several go before one of them alone."""
        if len(weights) == 1 and weights[0] in self._parts:
            return self._parts[weights[0]]
        rows = [weight.size(0) for weight in weights]
        whole = weights[0].new_empty(sum(rows), weights[0].size(1), dtype=self._dtype)
        for weight, part in zip(weights, torch.split(whole, rows), strict=True):
            if weight in self._parts:
                raise ValueError("a weight that has a copy alone gets no other")
            self._parts[weight] = part
        return whole

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights as they are now."""
        if self._parts:
            torch._foreach_copy_(list(self._parts.values()), [weight.detach() for weight in self._parts])


class Products:
    """x (..., K) times each weight (N, K) transposed, as `linears` does it. Each of `weights` is what one's rows consist of."""

    def __init__(self, copies: Copies, *weights: tuple[Tensor, ...]):
        self.narrow = [copies.of(*parts) for parts in weights]
        self.grads = [_place(part) for parts in weights for part in parts]

    def __call__(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if not self._suits(x):
            return linears(x, *weights)
        ys = _Products.apply(x.flatten(0, -2), len(self.narrow), *self.narrow, *self.grads)
        return tuple(y.view(*x.shape[:-1], y.size(-1)) for y in ys)

    def _suits(self, x: Tensor) -> bool:
        return kernels.training() and x.dtype == self.narrow[0].dtype and (kernels.usable(x) or not x.is_cuda)


class Product(Products):
    """The same of one weight, as `F.linear` does it."""

    def __init__(self, copies: Copies, weight: Tensor):
        super().__init__(copies, (weight,))

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, weight)[0]


class MLPFunction:
    """x (..., C) through `up` (H, C), relu(.)^2 and `down` (C, H), fused where kernels are."""

    def __init__(self, up: Product, down: Product):
        self.up, self.down = up, down

    def __call__(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        if kernels.usable(x):
            narrow, grads = (*self.up.narrow, *self.down.narrow), (*self.up.grads, *self.down.grads)
            y: Tensor = kernels.mlp.FusedMLP.apply(x.flatten(0, -2), *narrow, *grads)
            return y.view_as(x)
        return self.down(relu_squared(self.up(x, up)), down)


class LookUp:
    """Rows of a table (V, C) by ids (...), as `F.embedding` gives them, in `dtype`."""

    def __init__(self, weight: Tensor, dtype: torch.dtype):
        self.grad, self._dtype = _place(weight), dtype

    def __call__(self, ids: Tensor, weight: Tensor) -> Tensor:
        if not kernels.training():
            return F.embedding(ids, weight)
        rows: Tensor = _LookUp.apply(weight, ids, self.grad, self._dtype)
        return rows


class _LookUp(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(ids, grad)
        rows = F.embedding(ids, weight)
        return rows if rows.dtype == dtype else rows.to(dtype)  # see `layers._Norm`

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        ids, grad = ctx.saved_tensors
        add_embedding_grad(grad, ids.flatten(), upstream[0].flatten(0, -2))
        return None, None, None, None


class _Products(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, *rest: Tensor) -> tuple[Tensor, ...]:
        """`rest` are `count` weights, and then the places for gradients, side by side as the weights' rows."""
        ctx.save_for_backward(x, *rest)
        ctx.count = count
        return tuple(x @ weight.T for weight in rest[:count])

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
