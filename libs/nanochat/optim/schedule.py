"""Learning-rate multipliers and Muon's momentum, as functions of where training stands."""

from __future__ import annotations

MOMENTUM_RAMP_STEPS = 300


def trapezoid(step: int, total: int, *, warmup_ratio: float, warmdown_ratio: float, final_lr_frac: float) -> float:
    """Base training: up over the first `warmup_ratio` of the steps, flat, then linearly down to `final_lr_frac`."""
    warmup, warmdown = round(warmup_ratio * total), round(warmdown_ratio * total)
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


def muon_momentum(step: int) -> float:
    """0.85 to 0.95 over the first 300 steps: a young average must not outweigh the gradient."""
    part = min(step / MOMENTUM_RAMP_STEPS, 1.0)
    return 0.85 + 0.1 * part
