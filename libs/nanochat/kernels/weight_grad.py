"""The gradient of a linear's weight, added in place to the fp32 gradient that is there.

A weight's gradient dy^T x sums over every token and is small: at d20 5120 x 1280, which is 200 tiles of 128 x 256 where an H100
has 132 multiprocessors, so a kernel of whole tiles idles through a quarter of its time. Here the tiles that fill whole rounds
stay whole, and the sums of the others are split over the programs (a hybrid of data-parallel and split-K; Osama et al. 2023,
"Stream-K"). Parts of one tile are added in their order, by a turnstile, so the result is the same every time.

And it is fused with the accumulation over micro-steps: 8 bytes a weight instead of 20, and no rounding to bf16 between.
"""

from __future__ import annotations

import torch
from torch import Tensor

MULTIPLE = 8  # of both sides of a weight: TMA wants rows 16 bytes apart, or a multiple of it


@torch.library.custom_op("nanochat::add_weight_grad", mutates_args=("grad",))
def add_weight_grad(grad: Tensor, dy: Tensor, x: Tensor) -> None:
    """grad (N, K) fp32, contiguous, += dy (M, N)^T x (M, K), both bf16 on CUDA; N and K multiples of 8."""
    if x.is_cuda:
        from nanochat.kernels import weight_grad_triton  # where there is no GPU there may be no Triton

        weight_grad_triton.launch(grad, dy, x)
    else:
        grad.addmm_(dy.to(grad.dtype).T, x.to(grad.dtype))


@add_weight_grad.register_fake
def _(grad: Tensor, dy: Tensor, x: Tensor) -> None:
    return None
