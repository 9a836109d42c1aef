"""Events and log lines of a run in commit order, read by cursor. Pages and live streams use them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select, true
from sqlalchemy.orm import Session, aliased

from controlplane.errors import NotFound
from controlplane.models import Attempt, Event, LogLine, Run, Stage
from controlplane.schemas import EventPage, EventView, LogGap, LogPage, LogView


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
    of = select(Attempt.id, Attempt.no, Stage.name, Attempt.log_kept_from, Attempt.log_dropped_id)
    of = of.join(Stage, Stage.id == Attempt.stage_id).where(Stage.run_id == run_id)
    if stage is not None:
        of = of.where(Stage.name == stage)
    if attempt is not None:
        of = of.where(Attempt.no == attempt)
    attempts = {row.id: row for row in session.execute(of.order_by(Stage.position, Attempt.no))}
    if not attempts:
        _require_run(session, run_id)
    # The first lines of each attempt by its own index: the lines of all other attempts, perhaps millions, are not looked at.
    one = select(Attempt.id).where(Attempt.id.in_(attempts)).subquery()
    line = select(LogLine).where(LogLine.attempt_id == one.c.id, LogLine.id > after).order_by(LogLine.id).limit(limit)
    lines = aliased(LogLine, line.lateral("line"))
    items = [
        LogView(
            id=x.id,
            stage=attempts[x.attempt_id].name,
            attempt=attempts[x.attempt_id].no,
            no=x.no,
            t=x.t.timestamp(),
            line=x.line,
        )
        for x in session.scalars(select(lines).select_from(one).join(lines, true()).order_by(lines.id).limit(limit))
    ]
    gaps = [
        LogGap(stage=row.name, attempt=row.no, lines=row.log_kept_from)
        for row in attempts.values()
        if row.log_dropped_id > after
    ]
    return LogPage(items=items, gaps=gaps, next_after=items[-1].id if items else after)


def newest_id(session: Session, table: type[Event | LogLine], run_id: str) -> int:
    """The greatest id of the run's events or log lines, also of lines that are no longer kept; 0 if there was none."""
    if table is Event:
        return session.scalar(select(func.max(Event.id)).where(Event.run_id == run_id)) or 0
    newest = select(func.max(LogLine.id)).where(LogLine.attempt_id == Attempt.id).scalar_subquery()
    of = select(func.max(func.greatest(Attempt.log_dropped_id, newest))).join(Stage, Stage.id == Attempt.stage_id)
    return session.scalar(of.where(Stage.run_id == run_id)) or 0


def _require_run(session: Session, run_id: str) -> None:
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")
