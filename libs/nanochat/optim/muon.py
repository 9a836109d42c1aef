"""Muon (Jordan et al. 2024): momentum SGD whose update is orthogonalized by a Newton-Schulz iteration."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Iteration(NamedTuple):
    """One odd quintic a x + b x^3 + c x^5 per step. Together they map singular values from (0, 1 / margin] to about 1."""

    coefficients: tuple[tuple[float, float, float], ...]
    margin: float


ITERATIONS = {
    # The same polynomial five times: approaches 1 quickly, but not exactly (Jordan et al. 2024).
    "newton_schulz": Iteration(5 * ((3.4445, -4.7750, 2.0315),), margin=1.0),
    # Each step's polynomial is optimal for the range that the previous step leaves (Amsel et al. 2025). 2 % margin for bf16.
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
    """Approximately U V^T, where U S V^T is the singular value decomposition of each matrix. x (K, R, C), any strides.

    Computed in x's dtype. Each step multiplies x by one polynomial of x^T x or x x^T, whichever is smaller. `torch.baddbmm`
    is not used for the polynomial, because it would first copy the term it adds to.
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
    """One Muon step for K stacked matrices (K, R, C), R outputs by C inputs, in place. `scale` multiplies the gradient.

    The momentum buffer is an average (not a sum) of gradients, with Nesterov's look-ahead. Tall matrices take steps longer by
    sqrt(R / C), so that outputs change equally much in matrices of any shape. The iteration runs in `dtype`.

    `squares` (K, max(R, C)) with `beta2` enable NorMuon, see `normalize_neurons`. `weight_decay` times the step length
    shrinks a weight, but only where the update does not enlarge it: elsewhere decay would work against the loss (Chen et al.
    2025).
    """
    grad = grads * scale
    momentum_buffer.lerp_(grad, 1 - momentum)
    ahead = grad.lerp(momentum_buffer, momentum)
    rows, columns = weights.shape[-2:]
    length = lr * math.sqrt(max(1.0, rows / columns))
    update = orthogonalize(ahead.to(dtype), iteration)
    if squares is not None and beta2 is not None:
        update = normalize_neurons(update, squares, beta2)
    if weight_decay is not None:
        update = update + weights * (update * weights >= 0) * weight_decay
    weights.sub_(update * length)


def normalize_neurons(update: Tensor, squares: Tensor, beta2: float) -> Tensor:
    """NorMuon (Li et al. 2025): divide each row by the root of its running mean square, then restore each matrix's norm.

    update (K, R, C); columns take the place of rows where a matrix is wide. `squares` (K, max(R, C)), the running means,
    start at 0 and are updated in place.
    """
    along = -1 if update.size(-2) >= update.size(-1) else -2
    update = update.float()
    square = update.square().mean(dim=along, keepdim=True)
    running = squares.view_as(square)
    running.lerp_(square, 1 - beta2)
    normalized = update * running.clamp(min=1e-10).rsqrt()
    norm, new_norm = (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) for x in (update, normalized))
    restored: Tensor = normalized * (norm / new_norm.clamp(min=1e-10))
    return restored
