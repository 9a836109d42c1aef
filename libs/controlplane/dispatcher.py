"""The control loop that queues stages that are ready and sends a wake-up call to a worker for each.

A message is only a wake-up call: it may be lost, doubled or late. If a queued stage is not claimed within a while, its call is
sent again as long as some worker could take the stage.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import ColumnElement, String, and_, cast, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from controlplane.db import SessionFactory
from controlplane.lifecycle import LIVE_ATTEMPT, Desired, StageStatus
from controlplane.loops import leading, seconds
from controlplane.models import Artifact, Attempt, Run, Stage, Worker
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import stage_gate
from nanochat.planning.graph import SIDE_OUTPUTS

Publish = Callable[[int, str], None]


def tick(factory: SessionFactory, publish: Publish, *, timing: Timing = DEFAULT) -> int:
    """Queue stages that are ready or due for a retry, then wake workers. Returns how many calls were sent.

    `publish(stage_id, queue)` runs after the commit. If it raises, the remaining calls are left for the next tick. Call this at
    least once per second. Several processes may do so; only one leads at a time.
    """
    with factory.begin() as session:
        if not leading(session, "dispatcher", timing):
            return 0
        due = [i for is_due in (_ready(), _retry_due()) for i in session.scalars(select(Stage.id).where(is_due))]
    for stage_id in due:
        with factory.begin() as session:
            _queue(session, stage_id)
    with factory.begin() as session:
        calls = _take_calls(session, timing)
    sent = 0
    try:
        for stage_id, queue in calls:
            publish(stage_id, queue)
            sent += 1
    finally:
        if sent < len(calls):
            _give_back(factory, [stage_id for stage_id, _ in calls[sent:]])
    return sent


def _ready() -> ColumnElement[bool]:
    """The stage is PENDING, its run is to run, and every input is published, or is a hole: the figures of a side stage that failed."""
    source = func.jsonb_each_text(Stage.inputs).table_valued("key", "value").lateral("source")
    producer = aliased(Stage, name="producer")
    published = (
        exists()
        .where(Artifact.stage_id == producer.id)
        .where(producer.run_id == Stage.run_id)
        .where(producer.status.not_in([StageStatus.FAILED, StageStatus.CANCELLED]))
        .where(producer.name + "." + Artifact.name == cast(source.c.value, String))
        .correlate(Stage, source)
    )
    hole = (
        exists()
        .where(producer.run_id == Stage.run_id)
        .where(producer.status == StageStatus.FAILED, producer.outputs == [*SIDE_OUTPUTS])
        .where(producer.name + ".results" == cast(source.c.value, String))
        .correlate(Stage, source)
    )
    missing = exists().select_from(source).where(~published, ~hole).correlate(Stage)
    # A cheap filter: stages of runs without any artifact need no check of each input. Those may be thousands.
    possible = or_(Stage.inputs == {}, exists().where(Artifact.run_id == Stage.run_id).correlate(Stage))
    return and_(Stage.status == StageStatus.PENDING, _wanted(), possible, ~missing)


def _retry_due() -> ColumnElement[bool]:
    return and_(Stage.status == StageStatus.BACKOFF, Stage.retry_at <= func.clock_timestamp(), _wanted())


def _wanted() -> ColumnElement[bool]:
    wanted = (Run.desired == Desired.RUN, Run.finished_at.is_(None), ~Run.held)
    return exists().where(Run.id == Stage.run_id, *wanted).correlate(Stage)


def _queue(session: Session, stage_id: int) -> None:
    """Queue a stage, unless its status or the user's wish changed since it was found."""
    with stage_gate(session, stage_id) as (g, stage):
        if stage.status in (StageStatus.PENDING, StageStatus.BACKOFF) and g.run.desired is Desired.RUN:
            g.move(stage, StageStatus.QUEUED, reason=stage.reason, message=stage.message)


def _take_calls(session: Session, timing: Timing) -> list[tuple[int, str]]:
    """Stages to send wake-up calls for, the longest waiting first. They are marked as called."""
    stale = Stage.dispatched_at < func.clock_timestamp() - seconds(timing.redeliver_after)
    again = and_(stale, Stage.queue.in_(_idle_queues(session, timing)))
    chosen = (
        select(Stage.id)
        .where(Stage.status == StageStatus.QUEUED, or_(Stage.dispatched_at.is_(None), again))
        .order_by(Stage.queued_at, Stage.id)
        .with_for_update(skip_locked=True)
    )
    ids = list(session.scalars(chosen))
    rows = session.execute(
        update(Stage)
        .where(Stage.id.in_(ids))
        .values(dispatched_at=func.clock_timestamp())
        .returning(Stage.id, Stage.queue)
        .execution_options(synchronize_session=False)
    )
    queues = {row.id: row.queue for row in rows}
    return [(stage_id, queues[stage_id]) for stage_id in ids]


def _idle_queues(session: Session, timing: Timing) -> list[str]:
    """Queues that have a worker with a free slot. For others, more calls would only pile up in the broker."""
    held = select(func.count()).where(Attempt.worker_id == Worker.id, Attempt.status.in_(LIVE_ATTEMPT)).scalar_subquery()
    alive = Worker.heartbeat_at > func.clock_timestamp() - seconds(timing.worker_silent_after)
    query = select(Worker.queue).distinct().where(alive, ~Worker.draining, Worker.slots > held)
    return list(session.scalars(query))


def _give_back(factory: SessionFactory, stage_ids: list[int]) -> None:
    """Unmark stages whose call could not be sent, so that the next tick sends it."""
    with factory.begin() as session:
        session.execute(
            update(Stage)
            .where(Stage.id.in_(stage_ids), Stage.status == StageStatus.QUEUED)
            .values(dispatched_at=None)
            .execution_options(synchronize_session=False)
        )
