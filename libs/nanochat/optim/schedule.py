"""Multipliers of learning rate and weight decay, and Muon's momentum, as functions of training progress."""

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
    """Base training: rises linearly over the first `warmup_ratio` of the steps, stays at 1, falls linearly to `final_lr_frac`.

    `warmup_steps` overrides `warmup_ratio`; the warm-up ends at the latest where the warm-down begins.
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
    """Midtraining: 1, then linearly to 0 over the last `ratio` of the pass. `progress` is the fraction of the pass done."""
    return 1.0 if progress <= 1 - ratio else max(0.0, 1 - progress) / ratio


def linear(step: int, total: int) -> float:
    """Finetuning: falls from 1 at step 0 to 0 at step `total`."""
    return 1 - step / total


def muon_momentum(step: int, *, peak: float = 0.95, ramp_steps: int = 300) -> float:
    """0.85 at the start, `peak` after `ramp_steps`: an average of few gradients must not outweigh the newest one."""
    part = min(step / ramp_steps, 1.0)
    return MOMENTUM_START + round(peak - MOMENTUM_START, 9) * part


def momentum_falling(momentum: float, final: float, step: int, total: int, *, warmdown_ratio: float) -> float:
    """`momentum`, falling linearly to `final` over the warm-down: short steps need less smoothing."""
    warmdown = round(warmdown_ratio * total)
    fallen = max(0, step - (total - warmdown)) / warmdown if warmdown else 0.0
    return momentum + (final - momentum) * fallen


def weight_decay(step: int, total: int, kind: Literal["constant", "linear", "cosine"]) -> float:
    """Multiplier of the matrices' weight decay: constantly 1, or falling from 1 to 0 along a line or a cosine."""
    if kind == "constant":
        return 1.0
    return 1 - step / total if kind == "linear" else 0.5 * (1 + math.cos(math.pi * step / total))
