"""Metric series for charts, in buckets of neighbouring steps.

A resumed attempt starts from a checkpoint. Points that earlier attempts recorded beyond that step are superseded and left out.
Each bucket keeps the smallest, the largest and the newest value and counts those that are not finite: unlike sampling, this loses no
spike. When a series has more points than buckets, its first and its last point end buckets of their own.

A long series is read from `metric_bucket`, where 32 steps are one row. Its points themselves are read only where a bucket of 32 steps
would say too much: at its beginning, and around the steps from which attempts resumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.models import Run
from controlplane.points import WIDTH
from controlplane.schemas import GapView, MetricsView, PointView, SeriesView

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

_KEYS = text(
    BEGUN
    + """
SELECT b.stage_id, b.key, count(*) AS rows, min(b.bucket) AS first
FROM metric_bucket b JOIN begun ON begun.stage_id = b.stage_id AND begun.no = b.attempt_no
WHERE (begun.valid_to IS NULL OR b.bucket * :width <= begun.valid_to) AND (:all_keys OR b.key = ANY(:keys))
GROUP BY b.stage_id, b.key
"""
).bindparams(bindparam("keys", type_=ARRAY(Text)))

# The step itself from which an attempt resumed counts until that attempt has reported it.
_COUNTS = """
(b.valid_to IS NULL OR p.step < b.valid_to OR (p.step = b.valid_to AND NOT EXISTS (
    SELECT FROM metric_point q JOIN begun c ON c.stage_id = q.stage_id AND c.no = q.attempt_no
    WHERE q.stage_id = p.stage_id AND q.key = p.key AND q.step = p.step AND q.attempt_no > p.attempt_no
)))
"""
_POINT = """
p.stage_id, p.key, p.step, date_part('epoch', p.t) AS t, f.value AS last, f.value AS min, f.value AS max,
(f.value IS NULL)::int AS nonfinite
"""
_FINITE = "CROSS JOIN LATERAL (SELECT CASE WHEN p.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN p.value END AS value) AS f"

_SERIES = text(
    BEGUN
    + f"""
, short AS (
    SELECT * FROM unnest(:short_stages, :short_keys) AS s (stage_id, key)
), long AS (
    SELECT * FROM unnest(:long_stages, :long_keys, :firsts) AS l (stage_id, key, first)
), windows AS (
    SELECT stage_id, key, first * :width AS start, CAST(NULL AS bigint) AS no FROM long
    UNION ALL
    SELECT l.stage_id, l.key, b.valid_to / :width * :width, b.no
    FROM long l JOIN begun b USING (stage_id) WHERE b.valid_to / :width > l.first
), source AS MATERIALIZED (
    SELECT {_POINT}
    FROM short s JOIN metric_point p ON p.stage_id = s.stage_id AND p.key = s.key
    JOIN begun b ON b.stage_id = p.stage_id AND b.no = p.attempt_no {_FINITE}
    WHERE {_COUNTS}
    UNION ALL
    SELECT {_POINT}
    FROM windows w CROSS JOIN LATERAL (
        SELECT * FROM metric_point m
        WHERE m.stage_id = w.stage_id AND m.key = w.key AND m.step BETWEEN w.start AND w.start + :width - 1
        OFFSET 0  -- keeps the planner from reading the whole series instead
    ) AS p JOIN begun b ON b.stage_id = p.stage_id AND b.no = p.attempt_no AND b.no = coalesce(w.no, b.no) {_FINITE}
    WHERE {_COUNTS}
    UNION ALL
    SELECT m.stage_id, m.key, m.step, date_part('epoch', m.t),
           CASE WHEN m.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN m.value END, m.min, m.max, m.nonfinite
    FROM long l JOIN metric_bucket m ON m.stage_id = l.stage_id AND m.key = l.key AND m.bucket > l.first
    JOIN begun b ON b.stage_id = m.stage_id AND b.no = m.attempt_no
    WHERE b.valid_to IS NULL OR m.bucket * :width + :width - 1 < b.valid_to
), spans AS (
    SELECT stage_id, key, count(*) AS n, min(step) AS first, max(step) AS last FROM source GROUP BY stage_id, key
)
SELECT s.stage_id, s.key, max(s.step) AS step, min(s.min) AS min, max(s.max) AS max, sum(s.nonfinite)::bigint AS nonfinite,
       -- Arrays compare by their first element, the step: max() yields the newest point's time and value without a sort.
       max(ARRAY[s.step, s.t, s.last]) AS newest
FROM source s JOIN spans r ON r.stage_id = s.stage_id AND r.key = s.key
GROUP BY s.stage_id, s.key, CASE WHEN r.n <= :max_points THEN s.step
                                 WHEN s.step = r.first THEN -1
                                 WHEN s.step = r.last THEN :inner
                                 ELSE (s.step - r.first) * :inner / (r.last - r.first) END
ORDER BY s.stage_id, s.key, step
"""
).bindparams(
    *(bindparam(name, type_=ARRAY(Text)) for name in ("short_keys", "long_keys")),
    *(bindparam(name, type_=ARRAY(BigInteger)) for name in ("short_stages", "long_stages", "firsts")),
)

_GAPS = text(
    """
SELECT s.name AS stage, coalesce(a.resumed_from_step, 0) AS step, a.no AS attempt, extract(epoch FROM a.started_at) AS at
FROM attempt a JOIN stage s ON s.id = a.stage_id
WHERE s.run_id = :run_id AND a.no > 1 AND a.started_at IS NOT NULL
ORDER BY s.position, a.no
"""
)

_STAGES = text("SELECT id, name FROM stage WHERE run_id = :run_id ORDER BY position")


def metrics(
    session: Session,
    run_id: str,
    *,
    stage: str | None = None,
    keys: Sequence[str] | None = None,
    max_points: int = 500,
) -> MetricsView:
    """Series of at most `max_points` (3 or more) points each. Raises NotFound."""
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")
    rows = _rows(session, {"run_ids": [run_id], "stage": stage, "width": WIDTH}, keys, max_points)
    names = {row.id: row.name for row in session.execute(_STAGES, {"run_id": run_id})}
    gaps: dict[str, list[GapView]] = defaultdict(list)
    for row in session.execute(_GAPS, {"run_id": run_id}):
        gaps[row.stage].append(GapView(step=row.step, attempt=row.attempt, t=float(row.at)))
    series: dict[tuple[int, str], SeriesView] = {}
    for stage_id, key, step, low, high, nonfinite, (_, t, last) in rows:
        if (stage_id, key) not in series:
            name = names[stage_id]
            series[stage_id, key] = SeriesView(stage=name, key=key, points=[], gaps=gaps[name])
        point = PointView(step=step, t=t, min=low, max=high, last=last, nonfinite=nonfinite)
        series[stage_id, key].points.append(point)
    places = list(names)
    return MetricsView(series=[series[found] for found in sorted(series, key=lambda found: (places.index(found[0]), found[1]))])


def _rows(session: Session, of: dict[str, Any], keys: Sequence[str] | None, max_points: int) -> Sequence[Any]:
    session.execute(text("SET LOCAL work_mem = '64MB'"))  # enough to group 200,000 points in memory instead of on disk
    found = session.execute(_KEYS, of | {"all_keys": keys is None, "keys": list(keys or ())}).all()
    long = [row for row in found if row.rows > max_points]
    short = [row for row in found if row.rows <= max_points]
    which = {
        "short_stages": [row.stage_id for row in short],
        "short_keys": [row.key for row in short],
        "long_stages": [row.stage_id for row in long],
        "long_keys": [row.key for row in long],
        "firsts": [row.first for row in long],
    }
    return session.execute(_SERIES, of | which | {"max_points": max_points, "inner": max(1, max_points - 2)}).all()
