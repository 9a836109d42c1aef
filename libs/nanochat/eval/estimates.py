"""What a share of right answers tells, from the numbers that were counted."""

from __future__ import annotations

import math


def stderr(share: float, n: int) -> float:
    """The standard error of a share of `n` problems; 0 of none."""
    return math.sqrt(share * (1 - share) / n) if n else 0.0


def pass_at_k(right: int, of: int, k: int) -> float:
    """The chance that at least one of k answers is right, drawn from `of` answers of which `right` are (Chen et al. 2021)."""
    return 1 - math.comb(of - right, k) / math.comb(of, k)
