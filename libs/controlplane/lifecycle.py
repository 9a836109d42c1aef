"""Statuses of runs, stages and attempts, the allowed transitions, and the reasons for them. Standard library only.

A run's status is always derived from its stages (`derive`). What the user wants (`Desired`) is stored apart from it, because the
stages take time to follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Desired(StrEnum):
    """What the user wants the run to do. CANCEL is final."""

    RUN = "RUN"
    PAUSE = "PAUSE"
    CANCEL = "CANCEL"


class Wish(StrEnum):
    """What a user asked of a sweep and has yet to reach a run of it. ABORT cancels without saving."""

    PAUSE = "PAUSE"
    RESUME = "RESUME"
    CANCEL = "CANCEL"
    ABORT = "ABORT"


class Drain(StrEnum):
    """What a worker that takes no new stages does with its running ones.

    FINISH: it runs them to their end. HAND_OVER: it stops them with a checkpoint, and another worker continues them.
    """

    FINISH = "FINISH"
    HAND_OVER = "HAND_OVER"


class StageStatus(StrEnum):
    """Status of a stage.

    PENDING: an input has not been published yet. QUEUED: ready and waiting for a worker. STARTING: claimed by a worker, which
    launches its processes. STOPPING: told to save a checkpoint and end. BACKOFF: failed and waiting for a retry.
    """

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    BACKOFF = "BACKOFF"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_live(self) -> bool:
        """Whether a worker holds the stage."""
        return self in LIVE

    @property
    def is_finished(self) -> bool:
        return self in (StageStatus.SUCCEEDED, StageStatus.FAILED, StageStatus.CANCELLED)


LIVE = frozenset({StageStatus.STARTING, StageStatus.RUNNING, StageStatus.STOPPING})

TRANSITIONS: dict[StageStatus, frozenset[StageStatus]] = {
    StageStatus.PENDING: frozenset({StageStatus.QUEUED, StageStatus.CANCELLED}),
    StageStatus.QUEUED: frozenset({StageStatus.STARTING, StageStatus.PAUSED, StageStatus.CANCELLED}),
    StageStatus.STARTING: frozenset({StageStatus.RUNNING, StageStatus.STOPPING, StageStatus.BACKOFF, StageStatus.FAILED}),
    StageStatus.RUNNING: frozenset({StageStatus.SUCCEEDED, StageStatus.STOPPING, StageStatus.BACKOFF, StageStatus.FAILED}),
    StageStatus.STOPPING: frozenset(
        {
            StageStatus.PAUSED,
            StageStatus.CANCELLED,
            StageStatus.QUEUED,  # its worker shuts down; another one continues
            StageStatus.SUCCEEDED,  # it completed before it saw the stop request
            StageStatus.BACKOFF,
            StageStatus.FAILED,
        }
    ),
    StageStatus.BACKOFF: frozenset({StageStatus.QUEUED, StageStatus.PAUSED, StageStatus.CANCELLED, StageStatus.FAILED}),
    StageStatus.PAUSED: frozenset({StageStatus.QUEUED, StageStatus.CANCELLED}),
    StageStatus.FAILED: frozenset({StageStatus.QUEUED}),  # only on a user's retry
    StageStatus.SUCCEEDED: frozenset(
        {StageStatus.PENDING}
    ),  # only when a side stage that it did without succeeds after a retry
    StageStatus.CANCELLED: frozenset(),
}


class AttemptStatus(StrEnum):
    """Status of an attempt, which is one try of a stage on one worker.

    LOST: its worker sent no more heartbeats. PREEMPTED: stopped with a checkpoint, from which a later attempt continues.
    """

    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    LOST = "LOST"
    PREEMPTED = "PREEMPTED"
    CANCELLED = "CANCELLED"

    @property
    def is_live(self) -> bool:
        return self in LIVE_ATTEMPT


LIVE_ATTEMPT = frozenset({AttemptStatus.STARTING, AttemptStatus.RUNNING, AttemptStatus.STOPPING})


class Retry(StrEnum):
    """Whether a stage is tried again after an attempt ended for a reason."""

    NEVER = "never"
    COUNTED = "counted"  # yes, while failures since the last checkpoint progress are within the budget
    CRASH = "crash"  # as COUNTED, but not after two crashes in a row without checkpoint progress
    LATER = "later"  # yes, without counting, but minutes later: people have to mend the machine first
    FREE = "free"  # yes, at once and without counting: the stage did not fail


class Reason(StrEnum):
    """Why an attempt ended. A reason determines the attempt's status, whether to retry, and a message for people."""

    COMPLETED = "COMPLETED"
    USER_CANCEL = "USER_CANCEL"
    USER_ABORT = "USER_ABORT"
    USER_PAUSE = "USER_PAUSE"
    BUDGET = "BUDGET"
    STOPPED_EARLY = "STOPPED_EARLY"
    HOST_DRAIN = "HOST_DRAIN"
    STOPPED = "STOPPED"
    BAD_INPUT = "BAD_INPUT"
    NONFINITE = "NONFINITE"
    DIVERGED = "DIVERGED"
    CUDA_OOM = "CUDA_OOM"
    DISK_FULL = "DISK_FULL"
    READ_ONLY = "READ_ONLY"
    NCCL_TIMEOUT = "NCCL_TIMEOUT"
    TRANSIENT = "TRANSIENT"
    CRASHED = "CRASHED"
    KILLED = "KILLED"
    BAD_OUTPUT = "BAD_OUTPUT"
    LAUNCH_FAILED = "LAUNCH_FAILED"
    STALLED = "STALLED"
    WORKER_LOST = "WORKER_LOST"

    @property
    def attempt_status(self) -> AttemptStatus:
        return _REASONS[self].status

    @property
    def retry(self) -> Retry:
        return _REASONS[self].retry

    @property
    def message(self) -> str:
        """For people. Prefer the attempt's own message if it has one."""
        return _REASONS[self].message


@dataclass(frozen=True, slots=True)
class _Meaning:
    status: AttemptStatus
    retry: Retry
    message: str


_REASONS: dict[Reason, _Meaning] = {
    Reason.COMPLETED: _Meaning(AttemptStatus.SUCCEEDED, Retry.NEVER, "Done; all declared outputs are in place."),
    Reason.USER_CANCEL: _Meaning(AttemptStatus.CANCELLED, Retry.NEVER, "Cancelled on request."),
    Reason.USER_ABORT: _Meaning(AttemptStatus.CANCELLED, Retry.NEVER, "Cancelled at once on request; nothing was saved."),
    Reason.USER_PAUSE: _Meaning(AttemptStatus.PREEMPTED, Retry.FREE, "Paused on request."),
    Reason.BUDGET: _Meaning(
        AttemptStatus.PREEMPTED, Retry.FREE, "Paused because the run's budget is spent; raise the budget, then resume the run."
    ),
    Reason.STOPPED_EARLY: _Meaning(
        AttemptStatus.CANCELLED,
        Retry.NEVER,
        "Stopped early, because other runs of its sweep were better at the same point; fork it from its checkpoint to continue it.",
    ),
    Reason.HOST_DRAIN: _Meaning(
        AttemptStatus.PREEMPTED, Retry.FREE, "Its worker shut down; another worker continues the stage."
    ),
    Reason.STOPPED: _Meaning(AttemptStatus.PREEMPTED, Retry.COUNTED, "The stage stopped without a stop request."),
    Reason.BAD_INPUT: _Meaning(AttemptStatus.FAILED, Retry.NEVER, "Its input or configuration is not valid."),
    Reason.NONFINITE: _Meaning(
        AttemptStatus.FAILED, Retry.NEVER, "The loss became NaN or infinite; lower the learning rate or clip gradients."
    ),
    Reason.DIVERGED: _Meaning(
        AttemptStatus.FAILED, Retry.NEVER, "Training made the model worse than untrained; lower the learning rate."
    ),
    Reason.CUDA_OOM: _Meaning(AttemptStatus.FAILED, Retry.NEVER, "Out of memory; lower device_batch_size."),
    Reason.DISK_FULL: _Meaning(
        AttemptStatus.FAILED, Retry.LATER, "The disk is full; free space. The stage tries again every few minutes."
    ),
    Reason.READ_ONLY: _Meaning(
        AttemptStatus.FAILED,
        Retry.LATER,
        "A folder is read-only or not permitted; make it writable. The stage tries again every few minutes.",
    ),
    Reason.NCCL_TIMEOUT: _Meaning(
        AttemptStatus.FAILED, Retry.COUNTED, "The GPUs lost contact with one another (NCCL timeout)."
    ),
    Reason.TRANSIENT: _Meaning(
        AttemptStatus.FAILED, Retry.COUNTED, "A fault that may be temporary, such as a network or disk error."
    ),
    Reason.CRASHED: _Meaning(AttemptStatus.FAILED, Retry.CRASH, "The stage crashed; see the end of its log."),
    Reason.KILLED: _Meaning(
        AttemptStatus.FAILED, Retry.COUNTED, "A process was killed from outside, perhaps because memory ran out."
    ),
    Reason.BAD_OUTPUT: _Meaning(
        AttemptStatus.FAILED, Retry.CRASH, "The stage ended normally, but an output is missing or damaged."
    ),
    Reason.LAUNCH_FAILED: _Meaning(AttemptStatus.FAILED, Retry.COUNTED, "The stage's processes could not be started."),
    Reason.STALLED: _Meaning(AttemptStatus.FAILED, Retry.COUNTED, "The stage sent no event and no log line for too long."),
    Reason.WORKER_LOST: _Meaning(AttemptStatus.LOST, Retry.COUNTED, "Its worker sent no more heartbeats."),
}


HELD = "waits for its turn in the sweep"  # detail of a QUEUED run that its sweep has not released


class RunStatus(StrEnum):
    """Status of a run."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_finished(self) -> bool:
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


@dataclass(frozen=True, slots=True)
class StageState:
    """The facts about one stage that `derive` uses."""

    name: str  # for people
    status: StageStatus
    queue: str = ""
    attempt: int = 0
    resumed_from_step: int | None = None
    message: str = ""
    side: bool = False  # it only measures: if it fails, the rest of the run goes on
    reason: Reason | None = None


def derive(stages: Sequence[StageState], desired: Desired) -> tuple[RunStatus, str]:
    """Derive a run's status, and a detail for people, from its stages. The first rule that applies decides.

    A failed stage fails the run only when no other stage is live or due, so that a finished run never becomes active by itself.
    The stages that depend on the failed one stay PENDING, so that a retry only has to queue the failed one. A failed side stage
    fails no run: nothing but the report reads it, which is made without its figures.
    """
    by: dict[StageStatus, list[StageState]] = {status: [] for status in StageStatus}
    for stage in stages:
        by[stage.status].append(stage)
    live = by[StageStatus.STARTING] + by[StageStatus.RUNNING]
    waiting = by[StageStatus.QUEUED] + by[StageStatus.BACKOFF]
    failed, holes = ([s for s in by[StageStatus.FAILED] if s.side is side] for side in (False, True))

    if by[StageStatus.STOPPING]:
        return RunStatus.STOPPING, _each(by[StageStatus.STOPPING], "{name} is saving its work")
    if len(by[StageStatus.SUCCEEDED]) + len(holes) == len(stages):
        return RunStatus.SUCCEEDED, _each(holes, "without {name}, which failed: {message}")
    if desired is Desired.CANCEL and not live:
        early = any(stage.reason is Reason.STOPPED_EARLY for stage in by[StageStatus.CANCELLED])
        return RunStatus.CANCELLED, Reason.STOPPED_EARLY.message if early else ""
    if live:
        return RunStatus.RUNNING, ", ".join(_progress(stage) for stage in live)
    if failed and not waiting:
        return RunStatus.FAILED, _each(failed + holes, "{name} failed: {message}")
    if by[StageStatus.PAUSED] or desired is Desired.PAUSE:
        return RunStatus.PAUSED, _each(by[StageStatus.PAUSED], "{name} is paused")
    if any(stage.attempt for stage in stages):
        return RunStatus.RUNNING, _waiting(by) or "preparing the next stage"
    return RunStatus.QUEUED, _waiting(by)


def _progress(stage: StageState) -> str:
    parts = [stage.name]
    if stage.attempt > 1:
        parts.append(f"attempt {stage.attempt}")
    if stage.resumed_from_step:
        parts.append(f"resumed at step {stage.resumed_from_step}")
    return " · ".join(parts)


def _waiting(by: dict[StageStatus, list[StageState]]) -> str:
    lines = [f"{s.name} waits for a {s.queue} worker" for s in by[StageStatus.QUEUED]]
    lines += [f"{s.name} retries soon: {s.message}" for s in by[StageStatus.BACKOFF]]
    return ", ".join(lines)


def _each(stages: Sequence[StageState], template: str) -> str:
    return ", ".join(template.format(name=s.name, message=s.message) for s in stages)
