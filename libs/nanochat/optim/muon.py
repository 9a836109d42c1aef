"""Muon (Jordan et al. 2024): momentum whose update is made orthogonal by a Newton-Schulz iteration."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NS_STEPS = 5
NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # the quintic of the paper: fast to about 1, not exactly to 1


def orthogonalize(x: Tensor) -> Tensor:
    """Nearly the U V^T of each matrix's singular value decomposition U S V^T. x (K, R, C), any strides; computed in x's dtype."""
    a, b, c = NS_COEFFICIENTS
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True, dtype=torch.float32) + 1e-7).to(x.dtype)
    tall = x.size(-2) > x.size(-1)
    for _ in range(NS_STEPS):
        gram = x.mT @ x if tall else x @ x.mT  # the smaller of the two
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, x, polynomial, beta=a) if tall else torch.baddbmm(x, polynomial, x, beta=a)
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
) -> None:
    """One step in place for K stacked matrices (K, R, C), R the outputs. `scale` multiplies the gradient.

    The buffer is an average (not a sum) of gradients, looked ahead of once (Nesterov). Tall matrices step further by
    sqrt(R / C), so that each changes its outputs alike. The iteration runs in `dtype`.
    """
    grad = grads * scale
    momentum_buffer.lerp_(grad, 1 - momentum)
    ahead = grad.lerp(momentum_buffer, momentum)
    rows, columns = weights.shape[-2:]
    weights.sub_(orthogonalize(ahead.to(dtype)) * (lr * math.sqrt(max(1.0, rows / columns))))
