"""torch's layers without the weights they draw at birth, and the element-wise functions between them.

`init_weights` or a checkpoint gives the weights: drawing them costs seconds at d20, and on the meta device it loads torch's
whole compiler. `norm` and `relu_squared` remember their output for the backward pass, not their input: the next matrix
product keeps that output anyway, so the input (of a d20 step of 32 x 2048 tokens 20 x 6 x 160 MiB = 19 GiB) can go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat import kernels

EPS = torch.finfo(torch.float32).eps  # of the norms, whatever they norm


class Linear(nn.Linear):
    """x (..., in) to (..., out), no bias. The weight (out, in) is uninitialised. `product(x, weight)` is set for fp8 and
    for `accumulate`."""

    product: Callable[[Tensor, Tensor], Tensor] = staticmethod(F.linear)

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, self.weight)

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """ids (...) to (..., width). The weight is uninitialised. `look_up(ids, weight)` is set for `accumulate`."""

    look_up: Callable[[Tensor, Tensor], Tensor] = staticmethod(F.embedding)

    def forward(self, ids: Tensor) -> Tensor:
        return self.look_up(ids, self.weight)

    def reset_parameters(self) -> None:
        pass


def linears(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """x (..., K) times each weight (N, K) transposed."""
    return tuple(F.linear(x, weight) for weight in weights)


def norm(x: Tensor) -> Tensor:
    """x over the root mean square of its last dimension (Zhang and Sennrich 2019), computed in fp32, in x's dtype."""
    # Uncompiled, the function below is six kernels on a GPU where torch's own is one.
    if not kernels.training() or (x.is_cuda and not torch.compiler.is_compiling()):
        return F.rms_norm(x, (x.size(-1),), eps=EPS).to(x.dtype)
    y: Tensor = _Norm.apply(x)
    return y


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021)."""
    if not kernels.training():
        return F.relu(x).square()
    y: Tensor = _ReluSquared.apply(x)
    return y


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        wide = x.float()
        rstd = torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)
        y = wide * rstd
        if y.dtype != x.dtype:  # torch 2.11 compiles a conversion that changes nothing, at this place, to a gradient of 0
            y = y.to(x.dtype)
        ctx.save_for_backward(y, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        y, rstd = ctx.saved_tensors
        return norm_backward(grads[0], y, rstd)


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x).square()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        slope: Tensor = 2 * y.float().sqrt()  # d(relu(x)^2)/dx = 2 relu(x)
        return grads[0] * slope.to(y.dtype)


def norm_backward(grad: Tensor, y: Tensor, rstd: Tensor) -> Tensor:
    """The gradient of `norm`'s x from that of its output y (..., C) and from 1/rms (..., 1): what y cannot follow, its own
    direction, is taken out."""
    wide, out = grad.float(), y.float()
    return ((wide - out * (wide * out).mean(-1, keepdim=True)) * rstd).to(y.dtype)
