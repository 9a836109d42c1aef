"""A stretch of a metric as the rows of `metric_chunk`: one with its points, and one for each coarser size of bucket.

A row holds arrays in the binary form that COPY takes, so neither side touches single points. Buckets count points, not steps, so that
a metric of every thousandth step has full ones as well.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

SIZES = (1, 32, 128, 512)  # points of a bucket
LONGEST = 2048  # points of a chunk
COLUMNS = ("size", "first_step", "last_step", "points", "steps", "times", "lasts", "mins", "maxs", "nonfinites")
TYPES = ("int8", "int8", "int8", "int8", *["bytea"] * 6)  # an encoded array is sent as it is

Point = tuple[float, float]  # seconds since 1970, and the value
Optional = float | None
INT8, FLOAT8 = ("q", 20), ("d", 701)  # the code of `struct`, and Postgres' object id of the type


@dataclass(frozen=True, slots=True)
class Buckets:
    """Consecutive buckets in columns. A column over several buckets has the newest step, time and value, and the extremes of the
    finite values."""

    steps: Sequence[int]
    times: Sequence[float]
    lasts: Sequence[Optional]
    mins: Sequence[Optional]
    maxs: Sequence[Optional]
    nonfinites: Sequence[int]

    def merged(self, count: int, *, first_alone: bool) -> Buckets:
        """Each `count` neighbours as one. `first_alone` leaves the first as it is: a chart shows the first point of a series."""
        starts = [0, *range(1 if first_alone else count, len(self.steps), count)]
        ends = [*starts[1:], len(self.steps)]
        newest = [end - 1 for end in ends]
        spans = list(map(slice, starts, ends))
        finite = not any(self.nonfinites)
        return Buckets(
            [self.steps[n] for n in newest],
            [self.times[n] for n in newest],
            [self.lasts[n] for n in newest],
            [min(self.mins[span]) if finite else _least(self.mins[span]) for span in spans],  # type: ignore[type-var]
            [max(self.maxs[span]) if finite else _greatest(self.maxs[span]) for span in spans],  # type: ignore[type-var]
            [0] * len(spans) if finite else [sum(self.nonfinites[span]) for span in spans],
        )


def rows(points: Sequence[tuple[int, Point]], *, begins_series: bool) -> Iterator[tuple[Any, ...]]:
    """The rows of points in the order of their steps, with the values of COLUMNS."""
    for start in range(0, len(points), LONGEST):
        yield from _rows(points[start : start + LONGEST], begins_series and start == 0)


def _rows(points: Sequence[tuple[int, Point]], begins_series: bool) -> Iterator[tuple[Any, ...]]:
    steps = [step for step, _ in points]
    times = [point[0] for _, point in points]
    values = [point[1] for _, point in points]
    ends = steps[0], steps[-1], len(points)
    yield (1, *ends, _array(steps, INT8), _array(times, FLOAT8), _array(values, FLOAT8), None, None, None)
    if all(map(math.isfinite, values)):
        buckets = Buckets(steps, times, values, values, values, [0] * len(values))
    else:
        finite = [value if math.isfinite(value) else None for value in values]
        buckets = Buckets(steps, times, finite, finite, finite, [int(value is None) for value in finite])
    for finer, size in pairwise(SIZES):
        buckets = buckets.merged(size // finer, first_alone=begins_series)
        floats = (_array(column, FLOAT8) for column in (buckets.times, buckets.lasts, buckets.mins, buckets.maxs))
        yield (size, *ends, _array(buckets.steps, INT8), *floats, _array(buckets.nonfinites, INT8))


def _least(values: Sequence[Optional]) -> Optional:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Sequence[Optional]) -> Optional:
    return max((value for value in values if value is not None), default=None)


def _array(values: Sequence[Optional], kind: tuple[str, int]) -> bytes:
    """A one-dimensional array in the binary format of Postgres (array_send in src/backend/utils/adt/arrayfuncs.c)."""
    code, oid = kind
    has_null = None in values
    head = struct.pack("!iIIii", 1, has_null, oid, len(values), 1)
    if has_null:
        return head + b"".join(
            struct.pack("!i", -1) if value is None else struct.pack(f"!i{code}", 8, value) for value in values
        )
    fields: list[Optional] = [8] * (2 * len(values))  # each element is preceded by its length
    fields[1::2] = values
    return head + _layout(code, len(values)).pack(*fields)


@lru_cache(maxsize=256)
def _layout(code: str, count: int) -> struct.Struct:
    return struct.Struct("!" + f"i{code}" * count)
