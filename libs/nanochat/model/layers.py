"""Linear and Embedding without weight initialisation, and the element-wise functions of the model.

`init_weights` or a checkpoint fills the weights. torch's own initialisation would cost seconds at d20, and on the meta
device it would import torch's whole compiler. `norm` and `relu_squared` save their output for the backward pass, not their
input: the next matrix product saves that output anyway, so the input need not stay in memory. In a d20 step of 32 x 2048
tokens that frees 20 x 6 x 160 MiB = 19 GiB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat import kernels

EPS = torch.finfo(torch.float32).eps  # RMSNorm epsilon


class Linear(nn.Linear):
    """x (..., in) to (..., out), no bias. The weight (out, in) is uninitialised. `fp8` and `accumulate` replace `matmul`."""

    matmul: Callable[[Tensor, Tensor], Tensor] = staticmethod(F.linear)

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.matmul(x, self.weight)

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """ids (...) to (..., width). The weight is uninitialised. `accumulate` replaces `lookup`."""

    lookup: Callable[[Tensor, Tensor], Tensor] = staticmethod(F.embedding)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lookup(ids, self.weight)

    def reset_parameters(self) -> None:
        pass


def linears(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """x (..., K) times each weight (N, K) transposed: one (..., N) per weight."""
    return tuple(F.linear(x, weight) for weight in weights)


def norm(x: Tensor) -> Tensor:
    """RMSNorm without gain (Zhang and Sennrich 2019) over the last dimension, computed in fp32, returned in x's dtype."""
    # Outside the compiler, `_Norm` would take six GPU kernels; torch's own function takes one.
    if not kernels.training() or (x.is_cuda and not torch.compiler.is_compiling()):
        return F.rms_norm(x, (x.size(-1),), eps=EPS).to(x.dtype)
    y: Tensor = _Norm.apply(x)
    return y


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)^2, element-wise (So et al. 2021)."""
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
        if y.dtype != x.dtype:  # torch 2.11 compiles a conversion to the same dtype here into a gradient of 0
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
    """The gradient of `norm`'s x, from the gradient of its output, the output y (..., C) and 1/rms (..., 1).

    The part of the gradient along y is removed, because y cannot change in that direction.
    """
    wide, out = grad.float(), y.float()
    return ((wide - out * (wide * out).mean(-1, keepdim=True)) * rstd).to(y.dtype)
