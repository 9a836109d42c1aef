"""The state of the whole platform in a few numbers, for monitoring. Seven queries, however many runs there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.lifecycle import LIVE_ATTEMPT, Reason, RunStatus, StageStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Checkpoint, Loop, Run, Stage, Worker
from controlplane.webhook_kinds import DeliveryStatus
from controlplane.webhook_models import WebhookDelivery

SEEN_WITHIN_S = 86_400.0  # a worker that has been silent for a day is no longer reported


@dataclass(frozen=True, slots=True)
class Load:
    """The stages of one queue that are in one status. `longest_s` is how long the oldest of them has been queued."""

    queue: str
    status: StageStatus
    count: int
    longest_s: float


@dataclass(frozen=True, slots=True)
class WorkerVitals:
    """`lease_s` is the time until its first lease runs out, None without an attempt."""

    id: str
    queue: str
    silent_s: float
    slots: int
    attempts: int
    draining: bool
    lease_s: float | None


@dataclass(frozen=True, slots=True)
class Vitals:
    runs: dict[RunStatus, int]
    unfinished: list[Load]
    ended: dict[Reason, int]  # attempts by the reason for which they ended
    workers: list[WorkerVitals]
    loops: dict[str, float]  # control loop -> seconds since its last tick
    checkpoint_bytes: int  # of checkpoints that are on disk
    deliveries_waiting: int  # of all webhooks


@dataclass(frozen=True, slots=True)
class HeldVitals:
    """A live attempt of a worker. `event_seq` is the number of the last event that the ledger has."""

    run_id: str
    stage: str
    no: int
    lease_s: float
    event_seq: int


@dataclass(frozen=True, slots=True)
class OwnVitals:
    """What the ledger knows of one worker."""

    held: list[HeldVitals]
    ended: dict[Reason, int]  # its attempts by the reason for which they ended
    gpu_seconds: float  # of all its attempts, each GPU counted by itself


def of_worker(session: Session, worker_id: str) -> OwnVitals:
    mine = Attempt.worker_id == worker_id
    left = func.extract("epoch", Attempt.lease_expires_at - func.clock_timestamp())
    live = (
        select(Stage.run_id, Stage.name, Attempt.no, left, Attempt.event_seq)
        .join(Stage, Stage.id == Attempt.stage_id)
        .where(mine, Attempt.status.in_(LIVE_ATTEMPT))
        .order_by(Attempt.id)
    )
    ended = select(Attempt.reason, func.count()).where(mine, Attempt.reason.is_not(None)).group_by(Attempt.reason)
    took = func.extract("epoch", func.coalesce(Attempt.finished_at, func.clock_timestamp()) - Attempt.claimed_at)
    used = select(func.coalesce(func.sum(took * Attempt.gpus), 0)).where(mine)
    return OwnVitals(
        held=[HeldVitals(run, stage, no, float(lease), seq) for run, stage, no, lease, seq in session.execute(live)],
        ended={reason: n for reason, n in session.execute(ended) if reason is not None},
        gpu_seconds=float(session.scalar(used) or 0),
    )


def vitals(session: Session) -> Vitals:
    finished = [s for s in StageStatus if s.is_finished]
    waited = func.max(_age(Stage.queued_at)).filter(Stage.status == StageStatus.QUEUED)
    stages = (
        select(Stage.queue, Stage.status, func.count(), func.coalesce(waited, 0.0))
        .where(Stage.status.not_in(finished))
        .group_by(Stage.queue, Stage.status)
    )
    ended = select(Attempt.reason, func.count()).where(Attempt.reason.is_not(None)).group_by(Attempt.reason)
    kept = select(func.coalesce(func.sum(Checkpoint.bytes), 0)).where(Checkpoint.deleted_at.is_(None))
    waiting = select(func.count()).where(WebhookDelivery.status == DeliveryStatus.PENDING)
    return Vitals(
        runs={RunStatus(status): n for status, n in session.execute(select(Run.status, func.count()).group_by(Run.status))},
        unfinished=[Load(queue, status, n, float(longest)) for queue, status, n, longest in session.execute(stages)],
        ended={reason: n for reason, n in session.execute(ended) if reason is not None},
        workers=_workers(session),
        loops={name: float(age) for name, age in session.execute(select(Loop.name, _age(Loop.ticked_at)))},
        checkpoint_bytes=int(session.scalar(kept) or 0),
        deliveries_waiting=session.scalar(waiting) or 0,
    )


def _workers(session: Session) -> list[WorkerVitals]:
    left = func.extract("epoch", func.min(Attempt.lease_expires_at) - func.clock_timestamp())
    query = (
        select(Worker, _age(Worker.heartbeat_at), func.count(Attempt.id), left)
        .outerjoin(Attempt, (Attempt.worker_id == Worker.id) & Attempt.status.in_(LIVE_ATTEMPT))
        .where(Worker.heartbeat_at > func.clock_timestamp() - seconds(SEEN_WITHIN_S))
        .group_by(Worker.id)
        .order_by(Worker.queue, Worker.id)
    )
    return [
        WorkerVitals(w.id, w.queue, float(silent), w.slots, held, w.draining, None if lease is None else float(lease))
        for w, silent, held, lease in session.execute(query)
    ]


def _age(column: Any) -> Any:
    return func.extract("epoch", func.clock_timestamp() - column)
