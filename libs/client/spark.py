"""A curve as one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

STEPS = "▁▂▃▄▅▆▇█"
GAP = "·"  # where no value is finite


def sparkline(values: Sequence[float | None], width: int) -> str:
    """At most `width` characters, each for an equal part of the values: the mean of the part, between the least and the greatest."""
    means = [_mean(part) for part in _parts(values, width)]
    known = [value for value in means if value is not None]
    if not known:
        return GAP * len(means)
    low, high = min(known), max(known)
    span = high - low
    # A curve that is flat, or falls by less than floats tell apart, is drawn in the middle.
    return "".join(
        GAP if value is None else STEPS[3] if span <= 0 else STEPS[round((value - low) / span * (len(STEPS) - 1))]
        for value in means
    )


def _parts(values: Sequence[float | None], width: int) -> list[Sequence[float | None]]:
    count = min(width, len(values))
    return [values[len(values) * n // count : len(values) * (n + 1) // count] for n in range(count)]


def _mean(part: Sequence[float | None]) -> float | None:
    known = [value for value in part if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None
