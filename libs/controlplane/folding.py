"""The loop that folds into chunks what an attempt left in rows when it ended, and all that releases before chunks stored."""

from __future__ import annotations

from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from controlplane import points
from controlplane.db import SessionFactory
from controlplane.lifecycle import LIVE_ATTEMPT
from controlplane.loops import leading
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import gate

AT_ONCE = 50_000  # points of one transaction, and about that many of one tick: half a second of a core

# The stages that have rows, each by one probe of the index, and of those the attempts that have ended.
_ENDED = text(
    """
WITH RECURSIVE found AS (
    SELECT min(stage_id) AS stage_id FROM metric_point
    UNION ALL
    SELECT (SELECT min(p.stage_id) FROM metric_point p WHERE p.stage_id > found.stage_id) FROM found
    WHERE found.stage_id IS NOT NULL
)
SELECT s.run_id, a.stage_id, a.no FROM found JOIN attempt a USING (stage_id) JOIN stage s ON s.id = a.stage_id
WHERE a.status <> ALL(:live) AND EXISTS (SELECT FROM metric_point p WHERE p.stage_id = a.stage_id AND p.attempt_no = a.no)
ORDER BY a.stage_id, a.no
"""
).bindparams(bindparam("live", type_=ARRAY(Text)))

_KEYS = text("SELECT DISTINCT key FROM metric_point WHERE stage_id = :stage_id AND attempt_no = :attempt_no ORDER BY key")
_NTH_STEP = text(
    """
SELECT step FROM metric_point WHERE stage_id = :stage_id AND attempt_no = :attempt_no AND key = :key
ORDER BY step OFFSET :n - 1 LIMIT 1
"""
)
# Releases before chunks kept buckets of 32 steps beside the rows.
_DELETE_BUCKETS = text("DELETE FROM metric_bucket WHERE stage_id = :stage_id AND attempt_no = :attempt_no")


def tick(factory: SessionFactory, *, timing: Timing = DEFAULT) -> int:
    """Fold the rows of attempts that have ended, AT_ONCE or a few more. Returns how many. Call it every few seconds."""
    with factory.begin() as session:
        if not leading(session, "folding", timing):
            return 0
        ended = session.execute(_ENDED, {"live": [status.value for status in LIVE_ATTEMPT]}).all()
    folded = 0
    for run_id, stage_id, attempt_no in ended:
        if folded >= AT_ONCE:
            break
        with factory.begin() as session, gate(session, run_id):
            folded += fold(session, points.Attempt(stage_id, attempt_no))
    return folded


def fold(session: Session, of: points.Attempt) -> int:
    """Fold rows of an attempt that has ended, at most about AT_ONCE. Returns how many. The run must be locked."""
    keys = session.scalars(_KEYS, of.where()).all()
    folded = 0
    for metric in points.stored(session, of, keys):
        if folded >= AT_ONCE:
            break
        until = metric.newest
        if metric.waiting > AT_ONCE:
            until = session.scalars(_NTH_STEP, of.where(key=metric.key, n=AT_ONCE)).one()
        points.store_chunks(session, points.fold(session, of, metric, until=until))
        folded += min(metric.waiting, AT_ONCE)
    session.execute(_DELETE_BUCKETS, of.where())
    return folded
