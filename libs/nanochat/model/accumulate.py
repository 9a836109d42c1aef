"""Saves work that autograd and autocast repeat in every micro-step, for the weights of the blocks and the embeddings.

Gradients: the kernel that computes a weight's gradient adds it to the optimizer's fp32 gradient directly. Autograd would
compute it in bf16, convert it to fp32 and add it in a separate pass. Weights: each is converted to bf16 once per optimizer
step. Autocast would convert it in every micro-step.

Applied to a model from outside, as fp8 is. With gradients disabled, and inside `kernels.plain()`, it has no effect.

    copies = accumulate.apply(model, torch.bfloat16)    # once, after the optimizer has given every weight its gradient tensor
    ... forward, backward, the optimizer's step ...
    copies.refresh()                                    # whenever the weights have changed
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


def apply(model: GPT, dtype: torch.dtype, *, matmuls: bool = True) -> WeightCopies:
    """Change `model` in place, for inputs of `dtype`. Valid until a weight's `grad` is replaced by another tensor.

    A weight with a side that is not a multiple of 8 keeps its ordinary path. `matmuls=False` changes only the embeddings, for a
    model whose matrix products run in fp8. Raises ValueError if a weight has no gradient tensor yet.
    """
    copies = WeightCopies(dtype)
    for module in model.modules():
        if isinstance(module, Embedding):
            module.lookup = InPlaceEmbedding(module.weight, dtype)
    for module in model.blocks.modules() if matmuls else ():
        if isinstance(module, Attention) and _fits(module.q.weight, module.k.weight, module.v.weight):
            module.matmuls = InPlaceLinears(copies, (module.q.weight, module.k.weight), (module.v.weight,))
        elif isinstance(module, MLP) and _fits(module.up.weight, module.down.weight):
            module.implementation = InPlaceMLP(
                InPlaceLinear(copies, module.up.weight), InPlaceLinear(copies, module.down.weight)
            )
        elif isinstance(module, Linear) and _fits(module.weight):
            module.matmul = InPlaceLinear(copies, module.weight)
    copies.refresh()
    return copies


class WeightCopies:
    """Copies of the weights in the dtype of the matrix products, one per weight."""

    def __init__(self, dtype: torch.dtype):
        self._dtype = dtype
        self._parts: dict[Tensor, Tensor] = {}  # weight -> its copy

    def of(self, *weights: Tensor) -> Tensor:
        """One copy that holds the rows of all `weights` one after another. It is empty until `refresh`.

        Request a joint copy before the copy of any single weight in it, which is then a view of the joint one. The reverse
        order raises ValueError.
        """
        if len(weights) == 1 and weights[0] in self._parts:
            return self._parts[weights[0]]
        rows = [weight.size(0) for weight in weights]
        whole = weights[0].new_empty(sum(rows), weights[0].size(1), dtype=self._dtype)
        for weight, part in zip(weights, torch.split(whole, rows), strict=True):
            if weight in self._parts:
                raise ValueError("a weight already has a copy of its own: request joint copies first")
            self._parts[weight] = part
        return whole

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the current values of the weights."""
        if self._parts:
            torch._foreach_copy_(list(self._parts.values()), [weight.detach() for weight in self._parts])


class InPlaceLinears:
    """(x, *weights) -> x times each weight transposed, like `linears`. x (..., K), each weight (N, K).

    A weight may be several parameters stacked by rows; so each element of `weights` is a tuple.
    """

    def __init__(self, copies: WeightCopies, *weights: tuple[Tensor, ...]):
        self.narrow = [copies.of(*parts) for parts in weights]
        self.grads = [_gradient(part) for parts in weights for part in parts]

    def __call__(self, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        if not self._usable(x):
            return linears(x, *weights)
        ys = _LinearsFunction.apply(x.flatten(0, -2), len(self.narrow), *self.narrow, *self.grads)
        return tuple(y.view(*x.shape[:-1], y.size(-1)) for y in ys)

    def _usable(self, x: Tensor) -> bool:
        return kernels.training() and x.dtype == self.narrow[0].dtype and (kernels.usable(x) or not x.is_cuda)


class InPlaceLinear(InPlaceLinears):
    """(x, weight) -> x times weight transposed, like `F.linear`."""

    def __init__(self, copies: WeightCopies, weight: Tensor):
        super().__init__(copies, (weight,))

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        return super().__call__(x, weight)[0]


class InPlaceMLP:
    """(x, up, down) -> down(relu(up(x))^2), with the fused kernel where it is usable. x (..., C), up (H, C), down (C, H)."""

    def __init__(self, up: InPlaceLinear, down: InPlaceLinear):
        self.up, self.down = up, down

    def __call__(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        if kernels.usable(x):
            narrow, grads = (*self.up.narrow, *self.down.narrow), (*self.up.grads, *self.down.grads)
            y: Tensor = kernels.mlp.FusedMLP.apply(x.flatten(0, -2), *narrow, *grads)
            return y.view_as(x)
        return self.down(relu_squared(self.up(x, up)), down)


class InPlaceEmbedding:
    """(ids, weight) -> rows of the table, like `F.embedding`, in `dtype`. ids (...), weight (V, C)."""

    def __init__(self, weight: Tensor, dtype: torch.dtype):
        self.grad, self._dtype = _gradient(weight), dtype

    def __call__(self, ids: Tensor, weight: Tensor) -> Tensor:
        if not kernels.training():
            return F.embedding(ids, weight)
        rows: Tensor = _EmbeddingFunction.apply(weight, ids, self.grad, self._dtype)
        return rows


class _EmbeddingFunction(Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, grad: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(ids, grad)
        rows = F.embedding(ids, weight)
        return rows if rows.dtype == dtype else rows.to(dtype)  # why `if`: see `layers._Norm`

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[None, ...]:
        ids, grad = ctx.saved_tensors
        add_embedding_grad(grad, ids.flatten(), upstream[0].flatten(0, -2))
        return None, None, None, None


class _LinearsFunction(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, *rest: Tensor) -> tuple[Tensor, ...]:
        """`rest` is `count` weights, then the gradient tensors in the order of the weights' rows."""
        ctx.save_for_backward(x, *rest)
        ctx.count = count
        return tuple(x @ weight.T for weight in rest[:count])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        weights, grads = rest[: ctx.count], iter(rest[ctx.count :])
        dys = [dy.contiguous() for dy in upstream]
        for dy in dys:
            row = 0
            while row < dy.size(1):
                grad = next(grads)
                add_weight_grad(grad, dy[:, row : row + grad.size(0)], x)
                row += grad.size(0)
        dxs = [dy @ weight for dy, weight in zip(dys, weights, strict=True)]
        return sum(dxs[1:], start=dxs[0]), None, *(None for _ in rest)


def _gradient(weight: Tensor) -> Tensor:
    if weight.grad is None:
        raise ValueError("a weight has no gradient tensor to add to: create the optimizer first")
    return weight.grad.data  # `.data` has its own version counter: autograd rejects a saved tensor that was changed in place


def _fits(*weights: Tensor) -> bool:
    return all(size % MULTIPLE == 0 for weight in weights for size in weight.shape)
