"""Curves of bounded size. A long curve is cut into buckets of neighbouring steps, each with its newest, lowest and highest value.

A value that is not finite is counted and not drawn, so a bucket of nothing else is a hole in the curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from pydantic import BaseModel, Field

BUCKETS = 240  # of one curve: more than a plot of 300 pixels can show

Points = Mapping[int, float]  # step -> value


class Curve(BaseModel):
    """One metric by step. The lists are equally long; `low` and `high` are empty where every bucket is a single point."""

    key: str = Field(description="Key of the metric, as in the catalog.")
    steps: list[int] = Field(description="The last step of each bucket.")
    last: list[float | None] = Field(description="The newest value of each bucket; null: it has no finite value.")
    low: list[float | None] = Field(default=[], description="The lowest value of each bucket; empty: the buckets are points.")
    high: list[float | None] = Field(default=[], description="The highest value of each bucket; empty: the buckets are points.")
    nonfinite: list[int] = Field(default=[], description="Steps of the buckets that have values which are not finite.")

    @property
    def drawn(self) -> list[float]:
        """Every value that a plot has to have room for."""
        return [v for values in (self.last, self.low, self.high) for v in values if v is not None]


def of(key: str, points: Points) -> Curve:
    """The curve of these points, in at most `BUCKETS` buckets. The first and the last point are buckets of their own."""
    ordered = sorted(points.items())
    if len(ordered) <= BUCKETS:
        return Curve(
            key=key,
            steps=[step for step, _ in ordered],
            last=[_rounded(value) for _, value in ordered],
            nonfinite=[step for step, value in ordered if not math.isfinite(value)],
        )
    first, end = ordered[0][0], ordered[-1][0]
    inner = BUCKETS - 2

    def bucket(point: tuple[int, float]) -> int:
        step = point[0]
        return -1 if step == first else inner if step == end else (step - first) * inner // (end - first)

    curve = Curve(key=key, steps=[], last=[])
    for _, group in groupby(ordered, bucket):
        _add(curve, list(group))
    return curve


def number(value: Any) -> float | None:
    """A value of a metric event as a number. Events write values that are not finite as strings; null means not measured."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.get(str(value))


def _add(curve: Curve, bucket: list[tuple[int, float]]) -> None:
    """Append a bucket of points."""
    finite = [value for _, value in bucket if math.isfinite(value)]
    curve.steps.append(bucket[-1][0])
    curve.last.append(_rounded(finite[-1]) if finite else None)
    curve.low.append(_rounded(min(finite)) if finite else None)
    curve.high.append(_rounded(max(finite)) if finite else None)
    if len(finite) < len(bucket):
        curve.nonfinite.append(bucket[-1][0])


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
