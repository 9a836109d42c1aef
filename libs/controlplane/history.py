"""Delete what nobody reads any more of finished and of long runs: old log lines, and old events of the kinds that come with every step.

Kept as long as the run: every event that explains it (statuses, checkpoints, evaluations, samples, warnings, all that the ledger
wrote) and its metric points, which are the loss curve. Each batch is a short transaction that waits for nobody: what is being written
to is left for the next tick. What was deleted is counted, so that pages and streams tell a gap.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import takewhile
from typing import Any

from sqlalchemy import delete, func, select, true, update
from sqlalchemy.orm import Session

from controlplane.db import SessionFactory
from controlplane.ingest import LOG_LOCK
from controlplane.loops import leading, seconds
from controlplane.models import Attempt, Event, LogLine, Run, Stage
from controlplane.timing import DEFAULT, Timing

BULK = ("metric", "progress", "log")  # the values of a `metric` event are stored as points as well
BATCH = 2000  # rows of one transaction
TICK_S = 10.0  # after which a tick leaves the rest to the next one
DAY_S = 86_400.0
UNSYNCHRONIZED = {"synchronize_session": False}


@dataclass(frozen=True, slots=True)
class Keep:
    """Of each run: how many bulk events and log lines are kept, and for how many days."""

    events: int = 200_000
    event_days: float = 90.0
    log_lines: int = 200_000
    log_days: float = 90.0


def tick(factory: SessionFactory, keep: Keep, *, timing: Timing = DEFAULT) -> int:
    """Delete what is due. Returns how many rows were deleted."""
    with factory.begin() as session:
        if not leading(session, "history", timing):
            return 0
        duties: list[Callable[[Session], int]] = [
            *(partial(_delete_events, run_id=run_id, keep=keep) for run_id in session.scalars(_runs_due(keep))),
            *(partial(_delete_lines, attempt_id=attempt_id, keep=keep) for attempt_id in session.scalars(_attempts_due(keep))),
        ]
    done, deadline = 0, time.monotonic() + TICK_S
    for duty in duties:
        while time.monotonic() < deadline:
            with factory.begin() as session:
                deleted = duty(session)
            done += deleted
            if not deleted:
                break
    return done


# -- events --


def _runs_due(keep: Keep) -> Any:
    """Runs that hold more bulk events than are kept, or one that is too old."""
    reported = select(func.sum(Attempt.event_seq + 1)).join(Stage, Stage.id == Attempt.stage_id)
    reported_by_run = reported.where(Stage.run_id == Run.id).scalar_subquery()
    oldest = _bulk(Run.id, Run.events_dropped_id, Event.t).limit(1).lateral("oldest")
    too_old = oldest.c.t < func.clock_timestamp() - seconds(DAY_S * keep.event_days)
    too_many = reported_by_run - Run.events_dropped > keep.events
    return select(Run.id).outerjoin(oldest, true()).where(too_many | too_old).order_by(Run.created_at)


def _bulk(run_id: Any, after: Any, *columns: Any) -> Any:
    return select(*columns).where(Event.run_id == run_id, Event.id > after, Event.kind.in_(BULK)).order_by(Event.id)


def _delete_events(session: Session, run_id: str, keep: Keep) -> int:
    """Delete the oldest bulk events of the run, at most BATCH. Nothing while somebody else holds the run."""
    run = session.scalars(select(Run).where(Run.id == run_id).with_for_update(key_share=True, skip_locked=True)).first()
    if run is None:
        return 0
    rows = session.execute(_bulk(run_id, run.events_dropped_id, Event.id, Event.t.label("at")).limit(BATCH)).all()
    newest_first = select(Event.id).where(Event.run_id == run_id, Event.kind.in_(BULK)).order_by(Event.id.desc())
    up_to = session.scalar(newest_first.offset(keep.events).limit(1)) or 0  # this one and all before it are too many
    before = _days_ago(session, keep.event_days)
    due = [row.id for row in takewhile(lambda row: row.id <= up_to or row.at < before, rows)]
    if due:
        session.execute(delete(Event).where(Event.id.in_(due)), execution_options=UNSYNCHRONIZED)
        run.events_dropped += len(due)
        run.events_dropped_id = due[-1]
    return len(due)


# -- log lines --


def _attempts_due(keep: Keep) -> Any:
    """Attempts whose oldest line is too old, or whose run holds more lines than are kept; the oldest attempts first."""
    held = func.sum(Attempt.log_no + 1 - Attempt.log_kept_from).over(partition_by=Stage.run_id, order_by=Attempt.id.desc())
    lines = select(Attempt.id, Attempt.claimed_at, held.label("newer")).join(Stage, Stage.id == Attempt.stage_id)
    of = lines.where(Attempt.log_no >= Attempt.log_kept_from).subquery()
    oldest = select(LogLine.t).where(LogLine.attempt_id == of.c.id).order_by(LogLine.no).limit(1).lateral("oldest")
    too_old = oldest.c.t < func.clock_timestamp() - seconds(DAY_S * keep.log_days)
    return select(of.c.id).outerjoin(oldest, true()).where((of.c.newer > keep.log_lines) | too_old).order_by(of.c.id)


def _delete_lines(session: Session, attempt_id: int, keep: Keep) -> int:
    """Delete the first lines of the attempt, at most BATCH. Nothing while lines of its run are being stored."""
    run_id = session.scalars(
        select(Stage.run_id).join(Attempt, Attempt.stage_id == Stage.id).where(Attempt.id == attempt_id)
    ).one()
    if not session.scalar(select(func.pg_try_advisory_xact_lock(LOG_LOCK, func.hashtext(run_id)))):
        return 0
    lines = select(LogLine.id, LogLine.no, LogLine.t.label("at")).where(LogLine.attempt_id == attempt_id).order_by(LogLine.no)
    rows = list(enumerate(session.execute(lines.limit(BATCH)).all()))
    too_many = _held_from(session, run_id, attempt_id) - keep.log_lines
    before = _days_ago(session, keep.log_days)
    due = [row for _, row in takewhile(lambda item: item[0] < too_many or item[1].at < before, rows)]
    if due:
        gone = delete(LogLine).where(LogLine.attempt_id == attempt_id, LogLine.no <= due[-1].no)
        session.execute(gone, execution_options=UNSYNCHRONIZED)
        kept = {"log_kept_from": due[-1].no + 1, "log_dropped_id": func.greatest(Attempt.log_dropped_id, due[-1].id)}
        session.execute(update(Attempt).where(Attempt.id == attempt_id).values(**kept), execution_options=UNSYNCHRONIZED)
    return len(due)


def _held_from(session: Session, run_id: str, attempt_id: int) -> int:
    """How many lines of the run are kept, those of earlier attempts not counted."""
    held = select(func.sum(Attempt.log_no + 1 - Attempt.log_kept_from)).join(Stage, Stage.id == Attempt.stage_id)
    return int(session.scalar(held.where(Stage.run_id == run_id, Attempt.id >= attempt_id)) or 0)


def _days_ago(session: Session, days: float) -> datetime:
    moment: datetime = session.scalars(select(func.clock_timestamp() - seconds(DAY_S * days))).one()
    return moment
