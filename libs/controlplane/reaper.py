"""The control loop that reaps attempts of lost workers and stops attempts that have stalled."""

from __future__ import annotations

from sqlalchemy import Select, and_, exists, func, or_, select

from controlplane.claims import end
from controlplane.db import SessionFactory
from controlplane.lifecycle import LIVE_ATTEMPT, Reason, StageStatus
from controlplane.loops import leading, seconds, steady_for
from controlplane.models import Attempt, Stage, Worker
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import stage_gate


def tick(factory: SessionFactory, *, timing: Timing = DEFAULT) -> int:
    """Reap once. Returns how many attempts were declared lost or told to stop. Call it every few seconds.

    After a pause of this loop, for example a database outage, it waits for one full lease before it reaps anything: workers
    could not renew their leases during the outage either.
    """
    with factory.begin() as session:
        if not leading(session, "reaper", timing):
            return 0
        if steady_for(session, "reaper") < timing.lease_ttl:
            return 0
        lost = list(session.scalars(_lost(timing)))
        stalled = list(session.scalars(_stalled(timing)))
    return sum(_declare_lost(factory, i, timing) for i in lost) + sum(_stop_stalled(factory, i, timing) for i in stalled)


def _lost(timing: Timing) -> Select[int]:
    """Attempts whose lease has expired and whose worker sends no heartbeat. Long after expiry the lease alone is enough."""
    now = func.clock_timestamp()
    silent = ~exists().where(Worker.id == Attempt.worker_id, Worker.heartbeat_at > now - seconds(timing.worker_silent_after))
    grace, long = seconds(timing.lease_grace), seconds(timing.lease_ttl + timing.lease_grace)
    expired = or_(
        and_(Attempt.lease_expires_at < now - grace, silent),
        Attempt.lease_expires_at < now - long,
    )
    return select(Attempt.id).where(Attempt.status.in_(LIVE_ATTEMPT), expired)


def _stalled(timing: Timing) -> Select[int]:
    quiet = Stage.signs_of_life_at < func.clock_timestamp() - seconds(timing.stall_after)
    return (
        select(Attempt.id)
        .join(Stage, and_(Stage.id == Attempt.stage_id, Stage.attempt_no == Attempt.no))
        .where(Stage.status == StageStatus.RUNNING, quiet)
    )


def _declare_lost(factory: SessionFactory, attempt_id: int, timing: Timing) -> bool:
    with factory.begin() as session:
        stage_id = session.scalars(select(Attempt.stage_id).where(Attempt.id == attempt_id)).one()
        with stage_gate(session, stage_id) as (g, stage):
            still = _lost(timing).with_only_columns(Attempt).where(Attempt.id == attempt_id).with_for_update()
            attempt = session.scalars(still).first()
            if attempt is None:  # it was renewed or ended in the meantime
                return False
            end(g, stage, attempt, Reason.WORKER_LOST, timing=timing)
            return True


def _stop_stalled(factory: SessionFactory, attempt_id: int, timing: Timing) -> bool:
    with factory.begin() as session:
        stage_id = session.scalars(select(Attempt.stage_id).where(Attempt.id == attempt_id)).one()
        with stage_gate(session, stage_id) as (g, stage):
            if session.scalar(_stalled(timing).where(Attempt.id == attempt_id)) is None:
                return False
            g.ask_to_stop(stage, Reason.STALLED)
            return True
