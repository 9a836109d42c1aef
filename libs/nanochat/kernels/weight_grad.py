"""The gradient of a linear's weight, added in place to an existing fp32 gradient.

The gradient dy^T x sums over every token, but the result is small: 5120 x 1280 at d20, which is 200 tiles of 128 x 256. An
H100 has 132 multiprocessors, so a kernel that computes only whole tiles would idle for a quarter of its time. Here the tiles
that fill whole rounds of multiprocessors stay whole; the sum of each remaining tile is split over several programs (a hybrid
of data-parallel and split-K; Osama et al. 2023, "Stream-K"). The parts of a tile wait for one another and are added in
order, so the result is deterministic.

Adding in place also fuses the accumulation over micro-steps: 8 bytes of traffic per weight instead of 20, and no rounding to
bf16 in between.
"""

from __future__ import annotations

import torch
from torch import Tensor

MULTIPLE = 8  # both sides of a weight must be multiples of it: TMA requires row strides that are multiples of 16 bytes


@torch.library.custom_op("nanochat::add_weight_grad", mutates_args=("grad",))
def add_weight_grad(grad: Tensor, dy: Tensor, x: Tensor) -> None:
    """grad += dy^T x. grad (N, K) fp32, contiguous; dy (M, N) and x (M, K), both bf16 on CUDA; N and K multiples of 8."""
    if x.is_cuda:
        from nanochat.kernels import weight_grad_triton  # here, because without a GPU Triton may not be installed

        weight_grad_triton.launch(grad, dy, x)
    else:
        grad.addmm_(dy.to(grad.dtype).T, x.to(grad.dtype))


@add_weight_grad.register_fake
def _(grad: Tensor, dy: Tensor, x: Tensor) -> None:
    return None
