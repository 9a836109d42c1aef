"""Claim a stage for a worker, renew the lease, and end the attempt.

A claim makes an attempt. The attempt's number is a fence: every later write names it. A write by an attempt that has ended, or is
no longer the stage's current one, changes nothing and raises FenceLost. There is one exception, LateFence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from itertools import takewhile
from typing import Any

from sqlalchemy import Interval, exists, func, literal, or_, select, update
from sqlalchemy.orm import Session, aliased

from controlplane import measurements, promotion
from controlplane.errors import FenceLost
from controlplane.lifecycle import LIVE_ATTEMPT, AttemptStatus, Desired, Reason, Retry, StageStatus
from controlplane.models import Artifact, Attempt, Checkpoint, Json, Stage, Worker
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import Gate, gate, stage_gate
from nanochat.contract import contract
from nanochat.planning.graph import SIDE_OUTPUTS


@dataclass(frozen=True, slots=True)
class Fence:
    """Identifies one attempt of one stage; every write of its supervisor carries it."""

    run_id: str
    stage_id: int
    attempt_id: int
    attempt_no: int


@dataclass(frozen=True, slots=True)
class LateFence(Fence):
    """Admits what an attempt wrote to its spool before it ended and nobody had stored: its events and log lines, and no outputs.

    `heir` is the later attempt of the stage that stores them, and must be the current one. None: the worker that ran the attempt does.
    """

    heir: Fence | None = None


@dataclass(frozen=True, slots=True)
class SavedCheckpoint:
    """A checkpoint that an attempt can resume from. `attempt` is the number of the one that saved it; None: another stage's."""

    step: int
    artifact: contract.Artifact
    attempt: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed stage, with everything that its `stage.json` needs."""

    fence: Fence
    stage: str
    kind: str
    config: Json
    seed: int
    inputs: dict[str, contract.Artifact]
    outputs: tuple[str, ...]
    slot: int = 0  # of the worker, counted from 0
    checkpoints: tuple[SavedCheckpoint, ...] = field(default=())  # of earlier attempts, the furthest step first


@dataclass(frozen=True, slots=True)
class Lease:
    """The answer to a renewal. `stop` is the reason to stop, None to continue."""

    stop: Reason | None


def claim(
    session: Session, stage_id: int, worker_id: str, *, process: Json | None = None, timing: Timing = DEFAULT
) -> Claim | None:
    """Claim the stage for this worker; None if it could not be claimed. Raises NotFound for an unknown stage."""
    with stage_gate(session, stage_id) as (g, stage):
        if stage.status is not StageStatus.QUEUED or g.run.desired is not Desired.RUN:
            return None
        worker = session.scalars(select(Worker).where(Worker.id == worker_id).with_for_update()).first()
        slot = None if worker is None else _free_slot(session, worker, stage.queue)
        if worker is None or slot is None:
            return None
        g.move(stage, StageStatus.STARTING, attempt_no=Stage.attempt_no + 1, progress=None)
        attempt = Attempt(
            stage_id=stage.id,
            no=stage.attempt_no,
            worker_id=worker_id,
            slot=slot,
            gpus=worker.gpus,
            gpu_name=worker.gpu_name,
            process=process or {},
            lease_expires_at=_after(timing.lease_ttl),
        )
        session.add(attempt)
        session.flush()
        return Claim(
            fence=Fence(g.run.id, stage.id, attempt.id, attempt.no),
            stage=stage.name,
            kind=stage.kind,
            config=stage.config,
            seed=int(g.run.config.get("seed", 42)),
            inputs=_inputs(session, stage),
            outputs=tuple(stage.outputs),
            slot=slot,
            checkpoints=_checkpoints(session, stage),
        )


def started(
    session: Session,
    fence: Fence,
    *,
    process: Json,
    resumed_from_step: int | None = None,
    resumed_from_attempt: int | None = None,
) -> None:
    """Record that the stage's processes run. `process` identifies their supervisor. Raises FenceLost."""
    with gate(session, fence.run_id) as g:
        stage, attempt = fenced(session, fence)
        attempt.process, attempt.started_at = process, g.now()
        attempt.resumed_from_step, attempt.resumed_from_attempt = resumed_from_step, resumed_from_attempt
        if stage.status is StageStatus.STARTING:
            attempt.status = AttemptStatus.RUNNING
            g.move(stage, StageStatus.RUNNING)


def renew(session: Session, fence: Fence, *, timing: Timing = DEFAULT) -> Lease:
    """Renew the attempt's lease; the answer says whether to stop. Raises FenceLost. Does not lock the run."""
    row = session.execute(
        update(Attempt)
        .where(*current(fence))
        .values(lease_expires_at=_after(timing.lease_ttl))
        .returning(Attempt.stop_reason)
        .execution_options(synchronize_session=False)
    ).first()
    if row is None:
        raise lost(fence)
    return Lease(stop=row[0])


def is_current(session: Session, fence: Fence) -> bool:
    """Whether the attempt is live and its stage's current one. Does not lock anything."""
    return session.scalar(select(Attempt.id).where(*current(fence))) is not None


def stopping(session: Session, fence: Fence, reason: Reason) -> None:
    """Record that the worker itself stops the attempt, for example because it shuts down. Raises FenceLost."""
    with gate(session, fence.run_id) as g:
        stage, _ = fenced(session, fence)
        g.ask_to_stop(stage, reason)


def finish(
    session: Session,
    fence: Fence,
    reason: Reason,
    *,
    message: str = "",
    exit_code: int | None = None,
    timing: Timing = DEFAULT,
) -> StageStatus:
    """End the attempt and decide whether its stage is tried again. Returns the stage's new status. Raises FenceLost."""
    with gate(session, fence.run_id) as g:
        stage, attempt = fenced(session, fence)
        end(g, stage, attempt, reason, message=message, exit_code=exit_code, timing=timing)
    return stage.status


def end(
    g: Gate,
    stage: Stage,
    attempt: Attempt,
    reason: Reason,
    *,
    message: str = "",
    exit_code: int | None = None,
    timing: Timing = DEFAULT,
) -> None:
    """As `finish`, for a caller that already holds the gate.

    This is the only place that decides whether a stage has succeeded, is tried again or has failed.
    """
    text = message or reason.message
    g.end_attempt(attempt, reason, message=text, exit_code=exit_code)
    if reason is Reason.COMPLETED:
        if stage.status is StageStatus.STARTING:
            g.move(stage, StageStatus.RUNNING)
        g.move(stage, StageStatus.SUCCEEDED, reason=reason, failures=0)
        promotion.promote_final(g, stage)
        _fill_holes(g, stage)
        measurements.keep(g.session, g.run, stage, attempt)
        return
    if g.run.desired is Desired.CANCEL:
        _via_stopping(g, stage, reason)
        early = attempt.stop_reason is Reason.STOPPED_EARLY
        g.move(stage, StageStatus.CANCELLED, reason=attempt.stop_reason if early else Reason.USER_CANCEL, message=text)
        return
    progressed, furthest = _progress(g.session, stage, attempt)
    counted = reason.retry in (Retry.COUNTED, Retry.CRASH)
    failures = (0 if progressed else stage.failures) + (1 if counted else 0)
    in_a_row = _in_a_row(g.session, stage, reason.retry)
    looping = reason.retry is Retry.CRASH and not progressed and in_a_row >= timing.crash_limit
    changes = {"failures": failures, "best_step": furthest}
    if reason.retry is Retry.NEVER or failures >= timing.max_failures or looping:
        g.move(stage, StageStatus.FAILED, reason=reason, message=text + _why_final(reason, failures), **changes)
    elif g.run.desired is Desired.PAUSE:
        _via_stopping(g, stage, reason)
        g.move(stage, StageStatus.PAUSED, reason=reason, message=text, **changes)
    elif reason.retry is Retry.FREE:
        _via_stopping(g, stage, reason)
        g.move(stage, StageStatus.QUEUED, reason=reason, message=text, **changes)
    else:
        retry_at = _after(timing.retry_delay(failures) if counted else timing.storage_delay(in_a_row))
        g.move(stage, StageStatus.BACKOFF, reason=reason, message=text, retry_at=retry_at, **changes)


def fenced(session: Session, fence: Fence) -> tuple[Stage, Attempt]:
    """The stage and its attempt as they are now, if the fence is still current. The run must be locked. Raises FenceLost."""
    query = select(Attempt).where(*current(fence)).execution_options(populate_existing=True)
    attempt = session.scalars(query).first()
    if attempt is None:
        raise lost(fence)
    return session.get_one(Stage, fence.stage_id, populate_existing=True), attempt


def current(fence: Fence) -> tuple[Any, ...]:
    """Conditions under which the attempt is live and its stage's newest; of a LateFence, under which it has ended and its heir is."""
    if not isinstance(fence, LateFence):
        return _is_current(Attempt, fence)
    ended = Attempt.id == fence.attempt_id, Attempt.status.not_in(LIVE_ATTEMPT)
    if fence.heir is None:
        return ended
    heir = aliased(Attempt)
    return *ended, exists().where(*_is_current(heir, fence.heir))


def _is_current(attempt: type[Attempt], fence: Fence) -> tuple[Any, ...]:
    newest = select(Stage.attempt_no).where(Stage.id == fence.stage_id).scalar_subquery()
    return attempt.id == fence.attempt_id, attempt.status.in_(LIVE_ATTEMPT), newest == fence.attempt_no


def lost(fence: Fence) -> FenceLost:
    return FenceLost(f"attempt {fence.attempt_no} of stage {fence.stage_id} is no longer the current one")


# -- lease --


def _after(seconds: float) -> Any:
    return func.clock_timestamp() + literal(timedelta(seconds=seconds), Interval)


def _free_slot(session: Session, worker: Worker, queue: str) -> int | None:
    """The worker's lowest free slot. Its row is locked, so that two claims cannot take the same slot."""
    if worker.queue != queue or worker.draining:
        return None
    query = select(Attempt.slot).where(Attempt.worker_id == worker.id, Attempt.status.in_(LIVE_ATTEMPT))
    taken = set(session.scalars(query))
    return next((slot for slot in range(worker.slots) if slot not in taken), None)


# -- content of a claim --


def _inputs(session: Session, stage: Stage) -> dict[str, contract.Artifact]:
    """The newest artifact of each declared input. The figures of a side stage that failed are absent."""
    query = (
        select(Stage.name, Artifact.name, Artifact.path, Artifact.sha256)
        .join(Stage, Stage.id == Artifact.stage_id)
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(Artifact.run_id == stage.run_id)
        .order_by(Attempt.no)
    )
    published = {
        f"{producer}.{name}": contract.Artifact(path=path, sha256=sha256)
        for producer, name, path, sha256 in session.execute(query)
    }
    return {name: published[source] for name, source in stage.inputs.items() if source in published}


def _checkpoints(session: Session, stage: Stage) -> tuple[SavedCheckpoint, ...]:
    query = (
        select(Checkpoint, Attempt.no)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(or_(Checkpoint.stage_id == stage.id, Checkpoint.id == stage.start_checkpoint), Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.step.desc(), Attempt.no.desc())
    )
    return tuple(
        SavedCheckpoint(c.step, contract.Artifact(path=c.path, sha256=c.sha256), no if c.stage_id == stage.id else None)
        for c, no in session.execute(query)
    )


def _fill_holes(g: Gate, side: Stage) -> None:
    """Make again what was made without the figures of this side stage, which had failed: the report."""
    if side.outputs != [*SIDE_OUTPUTS] or g.run.desired is Desired.CANCEL:
        return
    for stage in g.stages():
        if stage.status is StageStatus.SUCCEEDED and f"{side.name}.{SIDE_OUTPUTS[0]}" in stage.inputs.values():
            g.move(stage, StageStatus.PENDING, message=f"It is made again with the figures of {side.name}.", progress=None)


# -- retry or fail --


def _progress(session: Session, stage: Stage, attempt: Attempt) -> tuple[bool, int | None]:
    """Whether this attempt saved a checkpoint beyond all earlier ones, and the furthest step that any attempt has saved."""
    mine = session.scalar(select(func.max(Checkpoint.step)).where(Checkpoint.attempt_id == attempt.id))
    if mine is None or (stage.best_step is not None and mine <= stage.best_step):
        return False, stage.best_step
    return True, mine


def _in_a_row(session: Session, stage: Stage, retry: Retry) -> int:
    """How many attempts up to the last one ended, one after another, for reasons of this kind. Counts no further than ten."""
    query = select(Attempt.reason).where(Attempt.stage_id == stage.id).order_by(Attempt.no.desc()).limit(10)
    reasons = session.scalars(query)
    return len(list(takewhile(lambda reason: reason is not None and reason.retry is retry, reasons)))


def _why_final(reason: Reason, failures: int) -> str:
    if reason.retry is Retry.NEVER:
        return ""
    return f" Given up after {failures} failures without a new checkpoint in between."


def _via_stopping(g: Gate, stage: Stage, reason: Reason) -> None:
    if stage.status is not StageStatus.STOPPING:
        g.move(stage, StageStatus.STOPPING, reason=reason, message=reason.message)
