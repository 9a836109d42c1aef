"""What lost attempts left in their spools: which there are, how such an attempt began, and what is missing for good.

A worker that is killed, frozen or cut off has written events that nobody stored. Its successor may resume from a checkpoint beyond
the last of them. So the successor stores the spools of lost attempts, and so does their worker when it starts again: the loss curve
keeps every step. Who of them comes first does not matter, because the numbers of what is stored are kept with the attempt.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from controlplane import points
from controlplane.claims import Fence, LateFence, fenced
from controlplane.lifecycle import AttemptStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Event, Stage
from controlplane.transitions import gate

REMEMBERED_S = 7 * 86_400.0  # a worker that starts again looks for what it left in this time
HOLE = "metrics_missing"  # kind of the event


@dataclass(frozen=True, slots=True)
class Leftover:
    """A lost attempt. `event_seq` is the number of its last event that is stored."""

    fence: LateFence
    stage: str
    worker_id: str
    event_seq: int


def before(session: Session, heir: Fence) -> list[Leftover]:
    """The lost attempts before `heir`, the current attempt of their stage, oldest first."""
    return _lost(session, heir, Attempt.stage_id == heir.stage_id, Attempt.no < heir.attempt_no)


def of_worker(session: Session, worker_id: str) -> list[Leftover]:
    """The attempts that the worker lost lately, oldest first."""
    lately = Attempt.finished_at > func.clock_timestamp() - seconds(REMEMBERED_S)
    return _lost(session, None, Attempt.worker_id == worker_id, lately)


def _lost(session: Session, heir: Fence | None, *where: ColumnElement[bool]) -> list[Leftover]:
    query = select(Attempt, Stage).join(Stage, Stage.id == Attempt.stage_id)
    query = query.where(Attempt.status == AttemptStatus.LOST, *where).order_by(Attempt.id)
    return [
        Leftover(LateFence(stage.run_id, stage.id, a.id, a.no, heir), stage.name, a.worker_id, a.event_seq)
        for a, stage in session.execute(query)
    ]


def began(session: Session, fence: Fence, resumed_from_step: int | None, resumed_from_attempt: int | None) -> None:
    """Record how an attempt began whose supervisor could never report it: only what has begun counts in a curve. Raises FenceLost."""
    with gate(session, fence.run_id):
        _, attempt = fenced(session, fence)
        if attempt.started_at is None:
            attempt.started_at = attempt.claimed_at
            attempt.resumed_from_step, attempt.resumed_from_attempt = resumed_from_step, resumed_from_attempt


def report_hole(session: Session, heir: Fence, why: str) -> bool:
    """Say in an event, once, which steps before `heir` the curve lacks, because the spool of the attempt that it continues cannot be read.

    Returns whether there is such a hole. Raises FenceLost.
    """
    with gate(session, heir.run_id) as g:
        stage, attempt = fenced(session, heir)
        to, parent = attempt.resumed_from_step, attempt.resumed_from_attempt
        if to is None or parent is None:
            return False
        since = session.scalar(select(Attempt.resumed_from_step).where(Attempt.stage_id == stage.id, Attempt.no == parent))
        last = points.last_step(session, stage.id, parent)
        last = (since or 0) if last is None else last
        if last >= to:
            return False
        told = select(Event.id).where(Event.run_id == heir.run_id, Event.kind == HOLE, Event.stage_id == stage.id)
        if session.scalar(told.where(Event.data["attempt"].as_integer() == heir.attempt_no).limit(1)) is None:
            message = (
                f"the metrics of attempt {parent} after step {last}, up to step {to}, from which attempt {heir.attempt_no} "
                f"resumed, are missing: {why}"
            )
            g.note(HOLE, stage, {"attempt": heir.attempt_no, "lost": parent, "after": last, "to": to, "message": message})
        return True
