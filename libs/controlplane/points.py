"""Store metric points: each by COPY, and in its bucket of 32 steps, in the transaction of the events that carry them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane import bulk
from controlplane.models import MetricPoint

WIDTH = 32  # steps of a bucket
COLUMNS = ("stage_id", "attempt_no", "key", "step", "t", "value")
TYPES = ("int8", "int8", "text", "int8", "timestamptz", "float8")

Point = tuple[datetime, float]
Points = Mapping[tuple[str, int], Point]  # by key and step

# A step that is reported again replaces its value. COPY cannot replace, so the old points go first; there are almost never any.
_REPLACED = text(
    """
DELETE FROM metric_point p USING unnest(:keys, :steps) AS new (key, step)
WHERE p.stage_id = :stage_id AND p.attempt_no = :attempt_no AND p.key = new.key AND p.step = new.step
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("steps", type_=ARRAY(BigInteger)))
_ANY = text(
    """
SELECT EXISTS (
    SELECT FROM unnest(:keys) AS new (key), LATERAL (
        SELECT FROM metric_point p
        WHERE p.stage_id = :stage_id AND p.key = new.key AND p.step BETWEEN :first AND :last AND p.attempt_no = :attempt_no LIMIT 1
    ) AS old
)
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)))

# An aggregate without GROUP BY in LATERAL: one short scan of the primary key for each bucket, however wrong the statistics are.
_BUCKETS = text(
    """
INSERT INTO metric_bucket (stage_id, key, bucket, attempt_no, min, max, nonfinite, step, t, value)
SELECT :stage_id, new.key, new.bucket, :attempt_no, found.min, found.max, found.nonfinite, last.step, last.t, last.value
FROM unnest(:keys, :buckets) AS new (key, bucket), LATERAL (
    SELECT min(value) FILTER (WHERE value NOT IN ('NaN', 'Infinity', '-Infinity')) AS min,
           max(value) FILTER (WHERE value NOT IN ('NaN', 'Infinity', '-Infinity')) AS max,
           count(*) FILTER (WHERE value IN ('NaN', 'Infinity', '-Infinity')) AS nonfinite
    FROM metric_point p
    WHERE p.stage_id = :stage_id AND p.key = new.key AND p.attempt_no = :attempt_no
      AND p.step BETWEEN new.bucket * :width AND new.bucket * :width + :width - 1
) AS found, LATERAL (
    SELECT p.step, p.t, p.value FROM metric_point p
    WHERE p.stage_id = :stage_id AND p.key = new.key AND p.attempt_no = :attempt_no
      AND p.step BETWEEN new.bucket * :width AND new.bucket * :width + :width - 1
    ORDER BY p.step DESC LIMIT 1
) AS last
ON CONFLICT (stage_id, key, bucket, attempt_no) DO UPDATE
SET min = excluded.min, max = excluded.max, nonfinite = excluded.nonfinite, step = excluded.step, t = excluded.t, value = excluded.value
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)), bindparam("buckets", type_=ARRAY(BigInteger)))


def store(session: Session, stage_id: int, attempt_no: int, points: Points) -> None:
    """Store the points of one attempt. The run must be locked."""
    if not points:
        return
    ordered = sorted(points)
    of = {"stage_id": stage_id, "attempt_no": attempt_no}
    _delete_replaced(session, of, ordered)
    rows = ((stage_id, attempt_no, key, step, *points[key, step]) for key, step in ordered)
    bulk.copy(session, MetricPoint, COLUMNS, TYPES, rows)
    touched = sorted({(key, step // WIDTH) for key, step in ordered})
    found = {"keys": [key for key, _ in touched], "buckets": [bucket for _, bucket in touched], "width": WIDTH}
    session.execute(_BUCKETS, of | found)


def _delete_replaced(session: Session, of: Mapping[str, int], ordered: Sequence[tuple[str, int]]) -> None:
    steps = [step for _, step in ordered]
    span = {"keys": sorted({key for key, _ in ordered}), "first": min(steps), "last": max(steps)}
    if session.scalar(_ANY, {**of, **span}):
        session.execute(_REPLACED, {**of, "keys": [key for key, _ in ordered], "steps": steps})
