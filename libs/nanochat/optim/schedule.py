"""Learning-rate multipliers and Muon's momentum, as functions of where training stands."""

from __future__ import annotations

import math
from typing import Literal

MOMENTUM_START = 0.85


def trapezoid(
    step: int,
    total: int,
    *,
    warmup_ratio: float,
    warmdown_ratio: float,
    final_lr_frac: float,
    warmup_steps: int | None = None,
) -> float:
    """Base training: up over the first `warmup_ratio` of the steps, flat, then linearly down to `final_lr_frac`.

    `warmup_steps` takes the ratio's place, up to where the way down begins.
    """
    warmup, warmdown = round(warmup_ratio * total), round(warmdown_ratio * total)
    if warmup_steps is not None:
        warmup = min(warmup_steps, total - warmdown)
    if step < warmup:
        return (step + 1) / warmup
    if step <= total - warmdown:
        return 1.0
    left = (total - step) / warmdown
    return left + (1 - left) * final_lr_frac


def warmdown(progress: float, ratio: float) -> float:
    """Midtraining, whose steps are not known beforehand: 1, then linearly to 0 over the last `ratio` of the pass."""
    return 1.0 if progress <= 1 - ratio else max(0.0, 1 - progress) / ratio


def linear(step: int, total: int) -> float:
    """Finetuning: from 1 at step 0 to 0 at `total`."""
    return 1 - step / total


def muon_momentum(step: int, *, peak: float = 0.95, ramp_steps: int = 300) -> float:
    """0.85 to `peak` over the first steps: a young average must not outweigh the gradient."""
    part = min(step / ramp_steps, 1.0)
    return MOMENTUM_START + round(peak - MOMENTUM_START, 9) * part


def momentum_falling(momentum: float, final: float, step: int, total: int, *, warmdown_ratio: float) -> float:
    """`momentum`, and over the warm-down linearly to `final`: short steps need less smoothing."""
    warmdown = round(warmdown_ratio * total)
    fallen = max(0, step - (total - warmdown)) / warmdown if warmdown else 0.0
    return momentum + (final - momentum) * fallen


def weight_decay(step: int, total: int, kind: Literal["constant", "linear", "cosine"]) -> float:
    """Multiplier of the matrices' weight decay: 1 throughout, or from 1 to 0 in the chosen form."""
    if kind == "constant":
        return 1.0
    return 1 - step / total if kind == "linear" else 0.5 * (1 + math.cos(math.pi * step / total))
