"""Which runs of a project have changed, for the live list of runs.

Postgres writes into each row the number of the transaction that wrote it last (`xmin`), so no change can be forgotten and no column or
trigger is needed. A position is a number below which all transactions have ended: what is written later has that number or a greater
one. It holds for all processes and over restarts.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, text
from sqlalchemy.orm import Session

from controlplane.list_schemas import RunSummary
from controlplane.run_list import summaries

AT_ONCE = 200  # runs that are read together

# xmin has 32 bits and comes round after four thousand million transactions, so what is compared is the distance, modulo 2^32. A row
# that was not written for half that time is taken for a new one, and its run is sent once too often.
_CHANGED = text(
    """
WITH asked AS (SELECT * FROM unnest(:projects, :positions) AS a (project, position))
SELECT r.project, r.id, r.deleted_at IS NOT NULL AS gone FROM run r JOIN asked a ON a.project = r.project
WHERE ((r.xmin::text::bigint - a.position) & 4294967295) < 2147483648
   OR (r.finished_at IS NULL AND r.deleted_at IS NULL AND EXISTS (
       SELECT FROM stage s WHERE s.run_id = r.id AND ((s.xmin::text::bigint - a.position) & 4294967295) < 2147483648))
ORDER BY r.id
"""
).bindparams(bindparam("projects", type_=ARRAY(Text)), bindparam("positions", type_=ARRAY(BigInteger)))


def position(session: Session) -> int:
    """The position now: what is committed later is after it."""
    return int(session.execute(text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).scalar_one())


def changed(session: Session, after: Mapping[str, int]) -> dict[str, dict[str, RunSummary | None]]:
    """The runs of each project that may have changed after the position that `after` gives for it; None: it is deleted.

    A run may be among them that looks as before: what changed is nothing that a list shows.
    """
    asked = {"projects": [*after], "positions": [*after.values()]}
    rows = session.execute(_CHANGED, asked).all()
    found: dict[str, dict[str, RunSummary | None]] = {project: {} for project in after}
    projects = {row.id: row.project for row in rows}
    for row in rows:
        if row.gone:
            found[row.project][row.id] = None
    seen = [row.id for row in rows if not row.gone]
    for first in range(0, len(seen), AT_ONCE):
        for summary in summaries(session, seen[first : first + AT_ONCE]):
            found[projects[summary.id]][summary.id] = summary
    return found
