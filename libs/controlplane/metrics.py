"""Metric series for charts, in buckets of neighbouring steps.

A resumed attempt starts from a checkpoint. Points that earlier attempts recorded beyond that step are superseded and left out.
Each bucket keeps the smallest, the largest and the newest value: unlike sampling, this loses no spike. When a series has more
points than buckets, its first and its last point are buckets of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.models import Run
from controlplane.schemas import GapView, MetricsView, PointView, SeriesView

_SERIES = text(
    """
WITH begun AS (
    SELECT a.stage_id, a.no,
           min(coalesce(a.resumed_from_step, -1))
               OVER (PARTITION BY a.stage_id ORDER BY a.no ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS valid_to
    FROM attempt a JOIN stage s ON s.id = a.stage_id
    WHERE s.run_id = :run_id AND a.started_at IS NOT NULL AND (:stage ::text IS NULL OR s.name = :stage)
), valid AS (
    SELECT DISTINCT ON (p.stage_id, p.key, p.step) p.stage_id, p.key, p.step, p.t, p.value
    FROM metric_point p JOIN begun b ON b.stage_id = p.stage_id AND b.no = p.attempt_no
    WHERE (b.valid_to IS NULL OR p.step <= b.valid_to) AND (:all_keys OR p.key = ANY(:keys))
    ORDER BY p.stage_id, p.key, p.step, p.attempt_no DESC
), ranged AS (
    SELECT *, count(*) OVER w AS n, min(step) OVER w AS first, max(step) OVER w AS last,
           value NOT IN ('NaN', 'Infinity', '-Infinity') AS finite
    FROM valid WINDOW w AS (PARTITION BY stage_id, key)
), bucketed AS (
    SELECT *, CASE WHEN n <= :max_points THEN step
                   WHEN step = first THEN -1
                   WHEN step = last THEN :inner
                   ELSE (step - first) * :inner / (last - first) END AS bucket
    FROM ranged
)
SELECT s.name AS stage, b.key, max(b.step) AS step,
       min(b.value) FILTER (WHERE b.finite) AS min, max(b.value) FILTER (WHERE b.finite) AS max,
       -- Arrays compare by their first element, the step: max() yields the newest point's time and value without a second sort.
       max(ARRAY[b.step, extract(epoch FROM b.t), CASE WHEN b.finite THEN b.value END]::float8[]) AS newest
FROM bucketed b JOIN stage s ON s.id = b.stage_id
GROUP BY s.position, s.name, b.key, b.bucket
ORDER BY s.position, b.key, step
"""
)

_GAPS = text(
    """
SELECT s.name AS stage, coalesce(a.resumed_from_step, 0) AS step, a.no AS attempt, extract(epoch FROM a.started_at) AS at
FROM attempt a JOIN stage s ON s.id = a.stage_id
WHERE s.run_id = :run_id AND a.no > 1 AND a.started_at IS NOT NULL
ORDER BY s.position, a.no
"""
)


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
    session.execute(text("SET LOCAL work_mem = '64MB'"))  # enough to sort 200,000 points in memory instead of on disk
    rows = session.execute(
        _SERIES,
        {
            "run_id": run_id,
            "stage": stage,
            "all_keys": keys is None,
            "keys": list(keys or ()),
            "max_points": max_points,
            "inner": max(1, max_points - 2),
        },
    )
    gaps: dict[str, list[GapView]] = defaultdict(list)
    for row in session.execute(_GAPS, {"run_id": run_id}):
        gaps[row.stage].append(GapView(step=row.step, attempt=row.attempt, t=float(row.at)))
    series: dict[tuple[str, str], SeriesView] = {}
    for row in rows:
        if (row.stage, row.key) not in series:
            series[row.stage, row.key] = SeriesView(stage=row.stage, key=row.key, points=[], gaps=gaps[row.stage])
        _, t, last = row.newest
        point = PointView(step=row.step, t=t, min=row.min, max=row.max, last=last)
        series[row.stage, row.key].points.append(point)
    return MetricsView(series=list(series.values()))
