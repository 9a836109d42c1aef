"""Events and log lines of a run in commit order, read by cursor. Pages and live streams use them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.models import Attempt, Event, LogLine, Run, Stage
from controlplane.schemas import EventPage, EventView, LogPage, LogView


def events(session: Session, run_id: str, *, after: int = 0, kinds: Sequence[str] = (), limit: int = 200) -> EventPage:
    """Events with an id greater than `after`, oldest first. Pass the page's `next_after` to continue. Raises NotFound."""
    query = (
        select(Event, Stage.name, func.coalesce(Attempt.no, Event.data["attempt"].as_integer()))
        .outerjoin(Stage, Stage.id == Event.stage_id)
        .outerjoin(Attempt, Attempt.id == Event.attempt_id)
        .where(Event.run_id == run_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    if kinds:
        query = query.where(Event.kind.in_(kinds))
    items = [
        EventView(id=e.id, stage=stage, attempt=no, seq=e.seq, t=e.t.timestamp(), kind=e.kind, data=e.data)
        for e, stage, no in session.execute(query)
    ]
    if not items:
        _require_run(session, run_id)
    return EventPage(items=items, next_after=items[-1].id if items else after)


def logs(
    session: Session,
    run_id: str,
    *,
    stage: str | None = None,
    attempt: int | None = None,
    after: int = 0,
    limit: int = 1000,
) -> LogPage:
    """Log lines with an id greater than `after`, oldest first. Raises NotFound."""
    query = (
        select(LogLine, Stage.name, Attempt.no)
        .join(Attempt, Attempt.id == LogLine.attempt_id)
        .join(Stage, Stage.id == Attempt.stage_id)
        .where(LogLine.run_id == run_id, LogLine.id > after)
        .order_by(LogLine.id)
        .limit(limit)
    )
    if stage is not None:
        query = query.where(Stage.name == stage)
    if attempt is not None:
        query = query.where(Attempt.no == attempt)
    items = [
        LogView(id=line.id, stage=name, attempt=no, t=line.t.timestamp(), line=line.line)
        for line, name, no in session.execute(query)
    ]
    if not items:
        _require_run(session, run_id)
    return LogPage(items=items, next_after=items[-1].id if items else after)


def _require_run(session: Session, run_id: str) -> None:
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")
