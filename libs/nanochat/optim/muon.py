"""Muon (Jordan et al. 2024): momentum whose update is made orthogonal by a Newton-Schulz iteration."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Iteration(NamedTuple):
    """An odd quintic a x + b x^3 + c x^5 of the singular values for each step, which bring them from (0, 1 / margin] to about 1."""

    coefficients: tuple[tuple[float, float, float], ...]
    margin: float


ITERATIONS = {
    # One polynomial five times: fast to about 1, not exactly to 1 (Jordan et al. 2024).
    "newton_schulz": Iteration(5 * ((3.4445, -4.7750, 2.0315),), margin=1.0),
    # The best polynomial for where the step before has brought the values (Amsel et al. 2025), with 2 % to spare for bf16.
    "polar_express": Iteration(
        (
            (8.1566, -22.4833, 15.8788),
            (4.0429, -2.8089, 0.5000),
            (3.8917, -2.7725, 0.5061),
            (3.2858, -2.3681, 0.4645),
            (2.3465, -1.7098, 0.4232),
        ),
        margin=1.02,
    ),
}


def orthogonalize(x: Tensor, iteration: Iteration = ITERATIONS["newton_schulz"]) -> Tensor:
    """Nearly the U V^T of each matrix's singular value decomposition U S V^T. x (K, R, C), any strides; computed in x's dtype.

    A step is one polynomial of the smaller of x^T x and x x^T, times x: `torch.baddbmm` would copy its first term before.
    """
    norm = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32)
    x = x / (norm * iteration.margin + 1e-7).to(x.dtype)
    tall = x.size(-2) > x.size(-1)
    one = torch.eye(min(x.shape[-2:]), device=x.device)
    for a, b, c in iteration.coefficients:
        gram = x.mT @ x if tall else x @ x.mT
        polynomial = (a * one + gram @ (b * one + c * gram).to(x.dtype)).to(x.dtype)
        x = x @ polynomial if tall else polynomial @ x
    return x


def muon_update(
    weights: Tensor,
    grads: Tensor,
    momentum_buffer: Tensor,
    *,
    scale: Tensor,
    lr: Tensor,
    momentum: Tensor,
    dtype: torch.dtype,
    iteration: Iteration = ITERATIONS["newton_schulz"],
    squares: Tensor | None = None,
    beta2: float | None = None,
    weight_decay: Tensor | None = None,
) -> None:
    """One step in place for K stacked matrices (K, R, C), R the outputs. `scale` multiplies the gradient.

    The buffer is an average (not a sum) of gradients, looked ahead of once (Nesterov). Tall matrices step further by
    sqrt(R / C), so that each changes its outputs alike. The iteration runs in `dtype`.

    `squares` (K, max(R, C)) with `beta2` evens out the update, see `even`. `weight_decay` shrinks a weight, by itself times
    the step's length, only where the update does not enlarge it (Chen et al. 2025): elsewhere it would work against the loss.
    """
    grad = grads * scale
    momentum_buffer.lerp_(grad, 1 - momentum)
    ahead = grad.lerp(momentum_buffer, momentum)
    rows, columns = weights.shape[-2:]
    length = lr * math.sqrt(max(1.0, rows / columns))
    update = orthogonalize(ahead.to(dtype), iteration)
    if squares is not None and beta2 is not None:
        update = even(update, squares, beta2)
    if weight_decay is not None:
        update = update + weights * (update * weights >= 0) * weight_decay
    weights.sub_(update * length)


def even(update: Tensor, squares: Tensor, beta2: float) -> Tensor:
    """The update (K, R, C) with each of its rows, or columns where a matrix is wide, over the root of its running mean square;
    each matrix keeps its norm (Li et al. 2025, NorMuon). `squares` (K, max(R, C)) starts at 0 and is moved on in place.
    """
    along = -1 if update.size(-2) >= update.size(-1) else -2
    update = update.float()
    square = update.square().mean(dim=along, keepdim=True)
    running = squares.view_as(square)
    running.lerp_(square, 1 - beta2)
    evened = update * running.clamp(min=1e-10).rsqrt()
    norm, now = (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) for x in (update, evened))
    same: Tensor = evened * (norm / now.clamp(min=1e-10))
    return same
