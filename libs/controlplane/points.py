"""Store metric points, in the transaction of the events that carry them.

New points of an attempt are rows of `metric_point`. Once FOLD_AT of a metric wait there, or arrive at once, they are folded into
`metric_chunk`, where a row holds many. Chunks of an attempt's metric never overlap, and its rows come after all of its chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import BigInteger, Subquery, Text, bindparam, func, select, text, union_all
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane import bulk, chunks
from controlplane.chunks import Point
from controlplane.models import MetricChunk, MetricPoint
from nanochat.contract.lines import BIGINT

FOLD_AT = 512  # points of a metric
COLUMNS = ("stage_id", "attempt_no", "key", "step", "t", "value")
TYPES = ("int8", "int8", "text", "int8", "timestamptz", "float8")

CHUNK_COLUMNS = ("stage_id", "attempt_no", "key", *chunks.COLUMNS)
CHUNK_TYPES = ("int8", "int8", "text", *chunks.TYPES)

Row = tuple[Any, ...]
Series = Mapping[str, Mapping[int, Point]]  # by metric and step

# Aggregates without GROUP BY in LATERAL: short scans of the primary keys, however wrong the statistics are.
_STORED = text(
    """
SELECT new.key, waiting, newest, first, last
FROM unnest(:keys) AS new (key), LATERAL (
    SELECT count(*) AS waiting, coalesce(max(step), -1) AS newest
    FROM metric_point p WHERE p.stage_id = :stage_id AND p.key = new.key AND p.attempt_no = :attempt_no
) AS rows, LATERAL (
    SELECT min(first_step) AS first, coalesce(max(last_step), -1) AS last
    FROM metric_chunk c WHERE c.stage_id = :stage_id AND c.size = :size AND c.key = new.key AND c.attempt_no = :attempt_no
) AS chunks
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)))

# A step that is reported again replaces its value. COPY cannot replace, so the old points go first; there are almost never any.
_DELETE_REPLACED = text(
    """
DELETE FROM metric_point p USING unnest(:keys, :steps) AS new (key, step)
WHERE p.stage_id = :stage_id AND p.attempt_no = :attempt_no AND p.key = new.key AND p.step = new.step
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("steps", type_=ARRAY(BigInteger)))

_TAKE_ROWS = text(
    """
DELETE FROM metric_point
WHERE stage_id = :stage_id AND attempt_no = :attempt_no AND key = :key AND step <= :until
RETURNING step, date_part('epoch', t) AS t, value
"""
)
_TAKE_CHUNKS = text(
    """
DELETE FROM metric_chunk
WHERE stage_id = :stage_id AND attempt_no = :attempt_no AND key = :key AND last_step >= :begin
RETURNING size, steps, times, lasts
"""
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Of which attempt the points are."""

    stage_id: int
    no: int

    def where(self, **more: Any) -> dict[str, Any]:
        return {"stage_id": self.stage_id, "attempt_no": self.no, **more}


@dataclass(frozen=True, slots=True)
class Metric:
    """What is stored of an attempt's metric: how many points wait in rows and up to which step, and the steps that chunks span."""

    key: str
    waiting: int
    newest: int  # -1 without any
    first: int | None
    last: int  # -1 without any


def store(session: Session, stage_id: int, attempt_no: int, series: Series) -> None:
    """Store the points of one attempt. The run must be locked."""
    of = Attempt(stage_id, attempt_no)
    rows: dict[str, Mapping[int, Point]] = {}
    replaced: list[tuple[str, int]] = []
    folded: list[Row] = []
    for metric in stored(session, of, list(series)):
        new = series[metric.key]
        begin = min(new)
        if metric.waiting + len(new) >= FOLD_AT or begin <= metric.last:
            folded += fold(session, of, metric, new)
            continue
        rows[metric.key] = new
        if begin <= metric.newest:
            replaced += [(metric.key, step) for step in new]
    if replaced:
        keys, steps = zip(*replaced, strict=True)
        session.execute(_DELETE_REPLACED, of.where(keys=list(keys), steps=list(steps)))
    if rows:
        bulk.copy(session, MetricPoint, COLUMNS, TYPES, _rows(of, rows))
    store_chunks(session, folded)


def everywhere(**of: Any) -> Subquery:
    """Select the points of these stages, metrics or attempts from rows and chunks: `attempt_no`, `step` and `value`."""
    row, chunk = MetricPoint, MetricChunk
    waiting = select(row.attempt_no, row.step, row.value).where(*(getattr(row, name) == value for name, value in of.items()))
    folded = select(chunk.attempt_no, func.unnest(chunk.steps), func.unnest(chunk.lasts)).where(
        chunk.size == 1, *(getattr(chunk, name) == value for name, value in of.items())
    )
    return union_all(waiting, folded).subquery("point")


def last_step(session: Session, stage_id: int, attempt_no: int) -> int | None:
    """The greatest step of which the attempt has a point, of any metric."""
    row, chunk = MetricPoint, MetricChunk
    waiting = select(func.max(row.step)).where(row.stage_id == stage_id, row.attempt_no == attempt_no)
    folded = select(func.max(chunk.last_step)).where(chunk.stage_id == stage_id, chunk.attempt_no == attempt_no)
    return max((step for step in (session.scalar(waiting), session.scalar(folded)) if step is not None), default=None)


def stored(session: Session, of: Attempt, keys: Sequence[str]) -> list[Metric]:
    found = session.execute(_STORED, of.where(keys=list(keys), size=chunks.SIZES[-1]))
    return [Metric(*row) for row in found]


def fold(
    session: Session, of: Attempt, metric: Metric, new: Mapping[int, Point] = MappingProxyType({}), *, until: int = BIGINT
) -> list[Row]:
    """Take the metric's rows out, up to a step, and make chunks of them and of the new points, for `store_chunks`."""
    taken = session.execute(_TAKE_ROWS, of.where(key=metric.key, until=until)) if metric.waiting else ()
    points: dict[int, Point] = {step: (t, value) for step, t, value in taken}
    begin = min([*new, *points])
    if begin <= metric.last:  # a step is reported again, or between others: the chunks from there on are made again
        for size, steps, times, values in session.execute(_TAKE_CHUNKS, of.where(key=metric.key, begin=begin)):
            if size == 1:
                points = dict(zip(steps, zip(times, values, strict=True), strict=True)) | points
    points.update(new)
    ordered = sorted(points.items())
    begins_series = metric.first is None or ordered[0][0] <= metric.first
    return [(of.stage_id, of.no, metric.key, *row) for row in chunks.rows(ordered, begins_series=begins_series)]


def store_chunks(session: Session, rows: Sequence[Row]) -> None:
    if rows:
        bulk.copy(session, MetricChunk, CHUNK_COLUMNS, CHUNK_TYPES, rows)


def _rows(of: Attempt, series: Series) -> Iterator[tuple[Any, ...]]:
    for key in sorted(series):
        for step, (t, value) in sorted(series[key].items()):
            yield of.stage_id, of.no, key, step, datetime.fromtimestamp(t, UTC), value
