"""What must hold after every fault. Each check returns what is wrong, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from sqlalchemy import func, select

from controlplane import metrics, points
from controlplane.lifecycle import AttemptStatus, RunStatus
from controlplane.models import Attempt, Checkpoint, Event
from nanochat.contract.contract import Artifact, StageError, verify
from tests.faults.campaign.case import STAGE, Case
from tests.faults.campaign.trainer import loss_of, state_after

Check = Callable[[Case], Iterator[str]]


def one_attempt_succeeded(case: Case) -> Iterator[str]:
    statuses = [a.status for a in case.attempts()]
    if any(status.is_live for status in statuses):
        yield f"an attempt is still alive: {statuses}"
    wanted = 1 if case.status() is RunStatus.SUCCEEDED else 0
    if statuses.count(AttemptStatus.SUCCEEDED) != wanted:
        yield f"{statuses.count(AttemptStatus.SUCCEEDED)} attempts succeeded, not {wanted}"


def the_curve_is_whole(case: Case) -> Iterator[str]:
    with case.stack.factory.begin() as s:
        series = metrics.metrics(s, case.run_id, stage=STAGE, keys=["loss"], max_points=100_000).series
    points = series[0].points if series else []
    steps = [p.step for p in points]
    if case.status() is RunStatus.SUCCEEDED and steps != list(range(1, case.plan.steps + 1)):
        missing = sorted(set(range(1, case.plan.steps + 1)) - set(steps))
        yield f"the curve lacks {len(missing)} steps ({missing[:5]}) and has {len(steps) - len(set(steps))} twice"
    wrong = [p.step for p in points if abs(float(p.last or 0) - loss_of(state_after(p.step))) > 1e-12]
    if wrong:
        yield f"the loss is wrong at {len(wrong)} steps ({wrong[:5]})"


def events_are_stored_once(case: Case) -> Iterator[str]:
    with case.stack.factory.begin() as s:
        point = points.everywhere(stage_id=case.stage_id, key="loss").c
        query = select(point.attempt_no, func.count(), func.min(point.step), func.max(point.step))
        for no, count, first, last in s.execute(query.group_by(point.attempt_no)):
            if count != last - first + 1:
                yield f"attempt {no} has {count} points for the steps {first} to {last}"
        twice = s.scalar(
            select(func.count()).select_from(
                select(Event.attempt_id)
                .where(Event.run_id == case.run_id, Event.seq.is_not(None))
                .group_by(Event.attempt_id, Event.seq)
                .having(func.count() > 1)
                .subquery()
            )
        )
        if twice:
            yield f"{twice} events are stored twice"


def nothing_runs_on(case: Case) -> Iterator[str]:
    try:
        case.until(lambda: not case.processes(), "the processes to end", 10)
    except TimeoutError:
        yield f"processes run on: {[' '.join(p.cmdline()[-4:]) for p in case.processes()]}"


def gpu_seconds_add_up(case: Case) -> Iterator[str]:
    """Attempts of one slot follow one another, each within the life of the run."""
    attempts = [a for a in case.attempts() if a.finished_at is not None]
    for attempt in attempts:
        if attempt.finished_at < attempt.claimed_at:
            yield f"attempt {attempt.no} ended before it began"
    by_slot: dict[tuple[str, int], list[Attempt]] = {}
    for attempt in attempts:
        by_slot.setdefault((attempt.worker_id, attempt.slot), []).append(attempt)
    for slot, held in by_slot.items():
        for one, two in pairwise(sorted(held, key=lambda a: a.claimed_at)):
            if one.finished_at is None or one.finished_at > two.claimed_at:
                yield f"the attempts {one.no} and {two.no} held the slot {slot} at once"


def checkpoints_are_whole(case: Case) -> Iterator[str]:
    """Every checkpoint that the ledger offers of the successful attempt is on disk."""
    with case.stack.factory.begin() as s:
        query = (
            select(Checkpoint)
            .join(Attempt, Attempt.id == Checkpoint.attempt_id)
            .where(
                Checkpoint.stage_id == case.stage_id,
                Checkpoint.deleted_at.is_(None),
                Attempt.status == AttemptStatus.SUCCEEDED,
            )
        )
        offered = list(s.scalars(query))
    for checkpoint in offered:
        try:
            verify(Artifact(path=checkpoint.path, sha256=checkpoint.sha256))
        except StageError as err:
            yield f"the checkpoint of step {checkpoint.step} is not whole: {err}"


CHECKS: tuple[Check, ...] = (
    one_attempt_succeeded,
    nothing_runs_on,
    the_curve_is_whole,
    events_are_stored_once,
    gpu_seconds_add_up,
    checkpoints_are_whole,
)


def problems(case: Case) -> list[str]:
    """Each as `<name of the check>: <what is wrong>`."""
    return [f"{check.__name__.replace('_', ' ')}: {problem}" for check in CHECKS for problem in check(case)]
