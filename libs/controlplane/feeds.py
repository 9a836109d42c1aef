"""Events and log lines of a run in commit order, read by cursor. Pages and live streams use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Subquery,
    TableValuedAlias,
    Text,
    column,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, aliased

from controlplane.errors import NotFound
from controlplane.history import BULK
from controlplane.models import Attempt, Event, LogLine, Run, Stage
from controlplane.schemas import EventGap, EventPage, EventView, LogGap, LogPage, LogView


def events(session: Session, run_id: str, *, after: int = 0, kinds: Sequence[str] = (), limit: int = 200) -> EventPage:
    """Events with an id greater than `after`, oldest first. Pass the page's `next_after` to continue. Raises NotFound."""
    chosen = select(Event).where(Event.run_id == run_id, Event.id > after)
    if kinds:
        chosen = chosen.where(Event.kind.in_(kinds))
    items = [view for _, view in _event_views(session, chosen.order_by(Event.id).limit(limit).subquery())]
    return EventPage(items=items, gaps=_event_gaps(session, run_id, after, kinds), next_after=items[-1].id if items else after)


def _event_gaps(session: Session, run_id: str, after: int, kinds: Sequence[str]) -> list[EventGap]:
    """Raises NotFound."""
    dropped = session.execute(select(Run.events_dropped, Run.events_dropped_id).where(Run.id == run_id)).first()
    if dropped is None:
        raise NotFound(f"there is no run {run_id!r}")
    number, last = dropped
    if last <= after or (kinds and not set(kinds) & set(BULK)):
        return []
    return [EventGap(events=number, last_id=last, kinds=[*BULK])]


def new_events(session: Session, after: Mapping[str, int], limit: int) -> dict[str, EventPage]:
    """The page of each run after the id that `after` gives for it, in one query however many runs there are."""
    asked = _asked(after)
    newer = select(Event).where(Event.run_id == asked.c.run_id, Event.id > asked.c.after).order_by(Event.id).limit(limit)
    rows = newer.lateral("row")
    pages = {run_id: EventPage(items=[], gaps=[], next_after=last) for run_id, last in after.items()}
    for run_id, view in _event_views(session, select(*rows.c).select_from(asked).join(rows, true()).subquery()):
        pages[run_id].items.append(view)
        pages[run_id].next_after = view.id
    return pages


def _event_views(session: Session, chosen: Subquery) -> Iterator[tuple[str, EventView]]:
    """Run and view of each chosen event, in the order of ids."""
    event = aliased(Event, chosen)
    query = (
        select(event, Stage.name, func.coalesce(Attempt.no, event.data["attempt"].as_integer()))
        .outerjoin(Stage, Stage.id == event.stage_id)
        .outerjoin(Attempt, Attempt.id == event.attempt_id)
        .order_by(event.id)
    )
    for e, stage, no in session.execute(query):
        yield e.run_id, EventView(id=e.id, stage=stage, attempt=no, seq=e.seq, t=e.t.timestamp(), kind=e.kind, data=e.data)


def logs(
    session: Session,
    run_id: str,
    *,
    stage: str | None = None,
    attempt: int | None = None,
    after: int = 0,
    limit: int = 1000,
    tail: bool = False,
) -> LogPage:
    """The first `limit` log lines with an id greater than `after`, or with `tail` the last ones; oldest first. Raises NotFound."""
    of = _attempts().where(Stage.run_id == run_id)
    if stage is not None:
        of = of.where(Stage.name == stage)
    if attempt is not None:
        of = of.where(Attempt.no == attempt)
    attempts = session.execute(of.order_by(Stage.position, Attempt.no)).all()
    if not attempts:
        _require_run(session, run_id)
    lines = _log_lines(session, {row.id: after for row in attempts}, limit, tail=tail)
    return _log_page(attempts, lines, after, slice(-limit, None) if tail else slice(limit))


def new_logs(session: Session, after: Mapping[str, int], limit: int) -> dict[str, LogPage]:
    """The page of each run after the id that `after` gives for it, in two queries however many runs there are."""
    found: dict[str, list[Any]] = {run_id: [] for run_id in after}
    for row in session.execute(_attempts().where(Stage.run_id.in_(after)).order_by(Stage.position, Attempt.no)):
        found[row.run_id].append(row)
    lines = _log_lines(session, {row.id: after[run_id] for run_id, rows in found.items() for row in rows}, limit)
    return {run_id: _log_page(found[run_id], lines, last, slice(limit)) for run_id, last in after.items()}


def _attempts() -> Any:
    of = select(Stage.run_id, Attempt.id, Attempt.no, Stage.name, Attempt.log_kept_from, Attempt.log_dropped_id)
    return of.join(Stage, Stage.id == Attempt.stage_id)


def _log_lines(session: Session, after: Mapping[int, int], limit: int, *, tail: bool = False) -> Mapping[int, list[LogLine]]:
    """The first or last lines of each attempt after the id that `after` gives for it, by attempt.

    Each attempt by its own index: the lines of all other attempts, perhaps millions, are not looked at.
    """
    one = (
        func.unnest(literal([*after], ARRAY(BigInteger)), literal([*after.values()], ARRAY(BigInteger)))
        .table_valued(column("id", BigInteger), column("after", BigInteger))
        .render_derived()
    )
    line = select(LogLine).where(LogLine.attempt_id == one.c.id, LogLine.id > one.c.after)
    line = line.order_by(LogLine.id.desc() if tail else LogLine.id).limit(limit)
    lines = aliased(LogLine, line.lateral("line"))
    by_attempt: dict[int, list[LogLine]] = {attempt_id: [] for attempt_id in after}
    for found in session.scalars(select(lines).select_from(one).join(lines, true())):
        by_attempt[found.attempt_id].append(found)
    return by_attempt


def _log_page(attempts: Sequence[Any], lines: Mapping[int, list[LogLine]], after: int, part: slice) -> LogPage:
    of = {row.id: row for row in attempts}
    chosen = sorted((line for attempt_id in of for line in lines[attempt_id]), key=lambda line: line.id)[part]
    items = [
        LogView(id=x.id, stage=of[x.attempt_id].name, attempt=of[x.attempt_id].no, no=x.no, t=x.t.timestamp(), line=x.line)
        for x in chosen
    ]
    gaps = [LogGap(stage=row.name, attempt=row.no, lines=row.log_kept_from) for row in attempts if row.log_dropped_id > after]
    return LogPage(items=items, gaps=gaps, next_after=items[-1].id if items else after)


def newest_id(session: Session, table: type[Event | LogLine], run_id: str) -> int:
    """The greatest id of the run's events or log lines, also of those that are no longer kept; 0 if there was none."""
    if table is Event:
        kept = session.scalar(select(func.max(Event.id)).where(Event.run_id == run_id)) or 0
        return max(kept, session.scalar(select(Run.events_dropped_id).where(Run.id == run_id)) or 0)
    newest = select(func.max(LogLine.id)).where(LogLine.attempt_id == Attempt.id).scalar_subquery()
    of = select(func.max(func.greatest(Attempt.log_dropped_id, newest))).join(Stage, Stage.id == Attempt.stage_id)
    return session.scalar(of.where(Stage.run_id == run_id)) or 0


def _require_run(session: Session, run_id: str) -> None:
    if session.get(Run, run_id) is None:
        raise NotFound(f"there is no run {run_id!r}")


def _asked(after: Mapping[str, int]) -> TableValuedAlias:
    """`run_id` and `after` as the rows of a table."""
    return (
        func.unnest(literal([*after], ARRAY(Text)), literal([*after.values()], ARRAY(BigInteger)))
        .table_valued(column("run_id", Text), column("after", BigInteger))
        .render_derived()
    )
