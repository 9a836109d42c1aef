"""Metric series for charts, in buckets of neighbouring steps.

A resumed attempt starts from a checkpoint. Points that earlier attempts recorded beyond that step are superseded and left out.
Each bucket keeps the smallest, the largest and the newest value and counts those that are not finite: unlike sampling, this loses no
spike. When a series has more points than buckets, its first and its last point end buckets of their own.

A long series is read from `metric_chunk`: the largest of its buckets that still are half as many as asked for, or more. Its points
themselves are read only from the chunk within which an attempt resumed, and from those at the two ends of a range of steps. Points
that are not in a chunk yet are read one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane.chunks import SIZES
from controlplane.errors import NotFound
from controlplane.models import Json, Run
from controlplane.schemas import MetricsView
from nanochat.contract.lines import BIGINT

# Which points of which attempt count: those of the newest attempt, and those of the attempt that saved its checkpoint up to that step,
# and so on. `valid_to` is the step from which the next attempt of this line resumed, or null. Attempts beside the line count nothing.
BEGUN = """
WITH RECURSIVE started AS (
    SELECT a.stage_id, a.no, coalesce(a.resumed_from_step, -1) AS since,
           coalesce(a.resumed_from_attempt, lag(a.no) OVER (PARTITION BY a.stage_id ORDER BY a.no)) AS parent,
           row_number() OVER (PARTITION BY a.stage_id ORDER BY a.no DESC) AS age
    FROM attempt a JOIN stage s ON s.id = a.stage_id
    WHERE s.run_id = ANY(:run_ids) AND a.started_at IS NOT NULL AND (:stage ::text IS NULL OR s.name = :stage)
), begun AS (
    SELECT stage_id, no, CAST(NULL AS bigint) AS valid_to, since, parent FROM started WHERE age = 1
    UNION ALL
    SELECT p.stage_id, p.no, least(b.valid_to, b.since), p.since, p.parent
    FROM begun b JOIN started p ON p.stage_id = b.stage_id AND p.no = b.parent AND p.no < b.no
)
"""

# About how many points the range has: of a chunk that is only partly in it, as large a part as of its steps.
_COUNTED = text(
    BEGUN
    + """
SELECT stage_id, key, ceil(sum(points))::bigint AS points, min(first) AS first FROM (
    SELECT c.stage_id, c.key, greatest(c.first_step, :from_step) AS first,
           c.points * (1.0 + least(c.last_step, :to_step) - greatest(c.first_step, :from_step))
               / (1 + c.last_step - c.first_step) AS points
    FROM metric_chunk c JOIN begun b ON b.stage_id = c.stage_id AND b.no = c.attempt_no
    WHERE c.size = :size AND c.first_step <= least(b.valid_to, :to_step) AND c.last_step >= :from_step
      AND (b.valid_to IS NULL OR b.valid_to >= :from_step) AND (:all_keys OR c.key = ANY(:keys))
    UNION ALL
    SELECT p.stage_id, p.key, p.step, 1 FROM metric_point p JOIN begun b ON b.stage_id = p.stage_id AND b.no = p.attempt_no
    WHERE p.step BETWEEN :from_step AND least(b.valid_to, :to_step) AND (:all_keys OR p.key = ANY(:keys))
) AS found GROUP BY stage_id, key
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)))

# The step itself from which an attempt resumed counts until that attempt has reported it.
_COUNTS = """
(b.valid_to IS NULL OR p.step < b.valid_to OR (p.step = b.valid_to AND NOT EXISTS (
    SELECT FROM metric_point q JOIN begun c ON c.stage_id = q.stage_id AND c.no = q.attempt_no
    WHERE q.stage_id = w.stage_id AND q.key = w.key AND q.step = p.step AND q.attempt_no > b.no
) AND NOT EXISTS (
    SELECT FROM metric_chunk q JOIN begun c ON c.stage_id = q.stage_id AND c.no = q.attempt_no
    WHERE q.stage_id = w.stage_id AND q.size = 1 AND q.key = w.key AND q.attempt_no > b.no
      AND q.first_step <= p.step AND q.last_step >= p.step AND p.step = ANY(q.steps)
)))
"""
_POINT = """
w.stage_id, w.key, p.step, p.t, f.value AS last, f.value AS min, f.value AS max, (f.value IS NULL)::int AS nonfinite,
false AS coarse
"""
_FINITE = "CROSS JOIN LATERAL (SELECT CASE WHEN p.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN p.value END AS value) AS f"

_SERIES = text(
    BEGUN
    + f"""
, wanted AS (
    SELECT * FROM unnest(:stages, :keys, :sizes, :firsts) AS w (stage_id, key, size, first)
), source AS MATERIALIZED (
    SELECT {_POINT}
    FROM wanted w CROSS JOIN LATERAL (
        SELECT m.attempt_no, m.step, date_part('epoch', m.t) AS t, m.value FROM metric_point m
        WHERE m.stage_id = w.stage_id AND m.key = w.key AND m.step BETWEEN :from_step AND :to_step
    ) AS p JOIN begun b ON b.stage_id = w.stage_id AND b.no = p.attempt_no {_FINITE}
    WHERE {_COUNTS}
    UNION ALL
    SELECT {_POINT}
    FROM (
        SELECT w.stage_id, w.key, b.no, b.valid_to, c.steps, c.times, c.lasts FROM wanted w JOIN begun b ON b.stage_id = w.stage_id
        JOIN metric_chunk c ON c.stage_id = w.stage_id AND c.size = 1 AND c.key = w.key AND c.attempt_no = b.no
        WHERE c.first_step <= least(b.valid_to, :to_step) AND c.last_step >= :from_step
          AND (w.size = 1 OR c.first_step <= w.first OR c.last_step > :to_step OR c.last_step >= b.valid_to)
        OFFSET 0  -- keeps the planner from taking chunks apart before it leaves them out: a chart of 8 keys takes 5 s then
    ) AS c CROSS JOIN LATERAL (SELECT c.stage_id, c.key) AS w CROSS JOIN LATERAL (SELECT c.no, c.valid_to) AS b
    CROSS JOIN LATERAL unnest(c.steps, c.times, c.lasts) AS p (step, t, value) {_FINITE}
    WHERE p.step BETWEEN :from_step AND :to_step AND {_COUNTS}
    UNION ALL
    SELECT c.stage_id, c.key, p.step, p.t, p.last, p.min, p.max, p.nonfinite, true
    FROM (
        SELECT c.* FROM wanted w JOIN begun b ON b.stage_id = w.stage_id
        JOIN metric_chunk c ON c.stage_id = w.stage_id AND c.size = w.size AND c.key = w.key AND c.attempt_no = b.no
        WHERE w.size > 1 AND c.first_step > w.first AND c.last_step <= :to_step AND (b.valid_to IS NULL OR c.last_step < b.valid_to)
        OFFSET 0
    ) AS c
    CROSS JOIN LATERAL unnest(c.steps, c.times, c.lasts, c.mins, c.maxs, c.nonfinites) AS p (step, t, last, min, max, nonfinite)
), spans AS (
    SELECT stage_id, key, count(*) AS n, min(step) AS first, max(step) AS last FROM source GROUP BY stage_id, key
)
, buckets AS (
    SELECT s.stage_id, s.key, max(s.step) AS step, min(s.min) AS min, max(s.max) AS max, sum(s.nonfinite)::bigint AS nonfinite,
           -- Arrays compare by their first element, the step: max() yields the newest point's time and value without a sort.
           max(ARRAY[s.step, s.t, s.last]) AS newest, count(*) > 1 OR bool_or(s.coarse) AS shared
    FROM source s JOIN spans r ON r.stage_id = s.stage_id AND r.key = s.key
    GROUP BY s.stage_id, s.key, CASE WHEN r.n <= :max_points THEN s.step
                                     WHEN s.step = r.first THEN -1
                                     WHEN s.step = r.last THEN :inner
                                     ELSE (s.step - r.first) * :inner / (r.last - r.first) END
)
SELECT stage_id, key, bool_or(shared),
    array_agg(step), array_agg(newest[2]), array_agg(min), array_agg(max), array_agg(newest[3]), array_agg(nonfinite)
FROM buckets GROUP BY stage_id, key
"""
).bindparams(
    bindparam("keys", type_=ARRAY(Text)),
    bindparam("stages", type_=ARRAY(BigInteger)),
    bindparam("sizes", type_=ARRAY(BigInteger)),
    bindparam("firsts", type_=ARRAY(BigInteger)),
)

_GAPS = text(
    """
SELECT s.name AS stage, coalesce(a.resumed_from_step, 0) AS step, a.no AS attempt, extract(epoch FROM a.started_at) AS at
FROM attempt a JOIN stage s ON s.id = a.stage_id
WHERE s.run_id = :run_id AND a.no > 1 AND a.started_at IS NOT NULL
  AND coalesce(a.resumed_from_step, 0) BETWEEN :from_step AND :to_step
ORDER BY s.position, a.no
"""
)

_FIELDS = ("step", "t", "min", "max", "last", "nonfinite")

_STAGES = text("SELECT id, name FROM stage WHERE run_id = :run_id ORDER BY position")


def metrics(
    session: Session,
    run_id: str,
    *,
    stage: str | None = None,
    keys: Sequence[str] | None = None,
    max_points: int = 500,
    from_step: int = 0,
    to_step: int = BIGINT,
) -> MetricsView:
    """Series of at most `max_points` (3 or more) points each, of the steps from `from_step` to `to_step`. Raises NotFound.

    A series that has no point among these steps is left out.
    """
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    steps = {"from_step": from_step, "to_step": to_step}
    # The gaps before the points: a reader who is told of an attempt may rely on its having superseded the points beyond it.
    gaps: dict[str, list[Json]] = defaultdict(list)
    for row in session.execute(_GAPS, {"run_id": run_id, **steps}):
        gaps[row.stage].append({"step": row.step, "attempt": row.attempt, "t": float(row.at)})
    rows = _rows(session, {"run_ids": [run_id], "stage": stage, **steps}, keys, max_points)
    names = {row.id: row.name for row in session.execute(_STAGES, {"run_id": run_id})}
    places = list(names)
    series = [
        {
            "stage": names[stage_id],
            "key": key,
            "points": [dict(zip(_FIELDS, point, strict=True)) for point in sorted(zip(*columns, strict=True))],
            "bucketed": bucketed,
            "gaps": gaps[names[stage_id]],
            "tokens_per_step": per_step(run.planned, names[stage_id], "tokens"),
            "flops_per_step": per_step(run.planned, names[stage_id], "flops"),
        }
        for stage_id, key, bucketed, *columns in sorted(rows, key=lambda row: (places.index(row.stage_id), row.key))
    ]
    # One call makes thousands of points five times as fast as a call for each.
    return MetricsView.model_validate({"series": series})


def per_step(plan: Json | None, stage: str, key: Literal["tokens", "flops"]) -> float | None:
    """What a step of the stage takes, from the plan that is stored with its run; every step takes as much."""
    planned = next((s for s in plan["stages"] if s["stage"] == stage), None) if plan else None
    if planned is None or not planned.get("steps") or planned.get(key) is None:
        return None
    return float(planned[key] / planned["steps"])


def _rows(session: Session, of: dict[str, Any], keys: Sequence[str] | None, max_points: int) -> Sequence[Any]:
    session.execute(text("SET LOCAL work_mem = '64MB'"))  # enough to group 200,000 points in memory instead of on disk
    counted = of | {"all_keys": keys is None, "keys": list(keys or ()), "size": SIZES[-1]}
    found = session.execute(_COUNTED, counted).all()
    which = {
        "stages": [row.stage_id for row in found],
        "keys": [row.key for row in found],
        "sizes": [_size(row.points, max_points) for row in found],
        # The chunk that begins a range is taken apart, so that the first point has a bucket of its own. The first chunk of a whole
        # series has such buckets already.
        "firsts": [row.first if of["from_step"] > 0 else -1 for row in found],
    }
    return session.execute(_SERIES, of | which | {"max_points": max_points, "inner": max(1, max_points - 2)}).all()


def _size(points: int, max_points: int) -> int:
    """Points of the buckets to read for a series."""
    if points <= max_points:
        return 1
    return max(size for size in SIZES if size == 1 or 2 * points >= size * max_points)
