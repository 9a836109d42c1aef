"""AdamW (Loshchilov and Hutter 2019) over a flat slice of parameters."""

from __future__ import annotations

from torch import Tensor


def adamw_update(
    weights: Tensor,
    grads: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    *,
    scale: Tensor,
    lr: Tensor,
    step: Tensor,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> None:
    """One AdamW step, in place. The four tensors have the same shape; `scale` multiplies the gradient; `step` counts from 1.

    Epsilon is added after the bias correction, as in the paper. Added before, it would shrink the first steps of every weight
    with a small gradient far too much.
    """
    grad = grads * scale
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.lerp_(grad.square(), 1 - beta2)
    denominator = (exp_avg_sq / (1 - beta2**step)).sqrt_().add_(eps)
    if weight_decay:
        weights.mul_(1 - lr * weight_decay)
    weights.sub_(exp_avg / denominator * (lr / (1 - beta1**step)))
