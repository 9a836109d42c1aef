"""The state machine: every pair of statuses, every reason, every rule of `derive`."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest

from controlplane.lifecycle import (
    LIVE,
    TRANSITIONS,
    AttemptStatus,
    Desired,
    Reason,
    Retry,
    RunStatus,
    StageState,
    StageStatus,
    derive,
)

P, Q, ST, R, X, B, PA, OK, F, C = (
    StageStatus.PENDING,
    StageStatus.QUEUED,
    StageStatus.STARTING,
    StageStatus.RUNNING,
    StageStatus.STOPPING,
    StageStatus.BACKOFF,
    StageStatus.PAUSED,
    StageStatus.SUCCEEDED,
    StageStatus.FAILED,
    StageStatus.CANCELLED,
)

# The transition table once more, as a drawing: the status of a row may become the statuses marked with x.
DRAWING = """
            P Q S R X B A K F C
PENDING     . x . . . . . . . x
QUEUED      . . x . . . x . . x
STARTING    . . . x x x . . x .
RUNNING     . . . . x x . x x .
STOPPING    . x . . . x x x x x
BACKOFF     . x . . . . x . x x
PAUSED      . x . . . . . . . x
SUCCEEDED   x . . . . . . . . .
FAILED      . x . . . . . . . .
CANCELLED   . . . . . . . . . .
"""
COLUMNS = (P, Q, ST, R, X, B, PA, OK, F, C)


def drawn() -> set[tuple[StageStatus, StageStatus]]:
    rows = [line.split() for line in DRAWING.strip().splitlines()[1:]]
    return {(StageStatus(name), to) for name, *marks in rows for to, mark in zip(COLUMNS, marks, strict=True) if mark == "x"}


@pytest.mark.parametrize(("frm", "to"), list(product(StageStatus, StageStatus)))
def test_the_table_allows_exactly_the_drawn_transitions(frm: StageStatus, to: StageStatus) -> None:
    assert (to in TRANSITIONS[frm]) == ((frm, to) in drawn())


def test_a_finished_stage_stays_so_unless_a_user_retries_it_or_what_it_did_without() -> None:
    assert {s for s in StageStatus if s.is_finished} == {OK, F, C}
    assert TRANSITIONS[C] == frozenset()
    assert TRANSITIONS[OK] == {P}
    assert TRANSITIONS[F] == {Q}


def test_every_unfinished_status_can_reach_a_finished_one() -> None:
    for status in StageStatus:
        reached, frontier = set(), {status}
        while frontier:
            reached |= frontier
            frontier = {to for s in frontier for to in TRANSITIONS[s]} - reached
        assert status.is_finished or {OK, C} & reached


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_a_status_a_retry_rule_and_a_message(reason: Reason) -> None:
    assert reason.attempt_status in AttemptStatus
    assert not reason.attempt_status.is_live
    assert reason.retry in Retry
    assert reason.message.endswith(".")


def test_completed_is_the_only_reason_that_succeeds() -> None:
    assert [r for r in Reason if r.attempt_status is AttemptStatus.SUCCEEDED] == [Reason.COMPLETED]


RUN, PAUSE, CANCEL = Desired.RUN, Desired.PAUSE, Desired.CANCEL


@pytest.mark.parametrize(
    ("statuses", "desired", "expected"),
    [
        ((P, P, P), RUN, RunStatus.QUEUED),
        ((Q, P, P), RUN, RunStatus.QUEUED),
        ((ST, P, P), RUN, RunStatus.RUNNING),
        ((R, Q, P), RUN, RunStatus.RUNNING),
        ((OK, P, P), RUN, RunStatus.RUNNING),
        ((OK, Q, P), RUN, RunStatus.RUNNING),
        ((B, P, P), RUN, RunStatus.RUNNING),
        ((OK, OK, OK), RUN, RunStatus.SUCCEEDED),
        ((OK, OK, OK), CANCEL, RunStatus.SUCCEEDED),
        ((OK, F, P), RUN, RunStatus.FAILED),
        ((F, R, P), RUN, RunStatus.RUNNING),
        ((F, Q, P), RUN, RunStatus.RUNNING),
        ((F, B, P), RUN, RunStatus.RUNNING),
        ((F, PA, P), RUN, RunStatus.FAILED),
        ((OK, PA, P), PAUSE, RunStatus.PAUSED),
        ((OK, P, P), PAUSE, RunStatus.PAUSED),
        ((R, PA, P), PAUSE, RunStatus.RUNNING),
        ((X, PA, P), PAUSE, RunStatus.STOPPING),
        ((X, C, C), CANCEL, RunStatus.STOPPING),
        ((OK, C, C), CANCEL, RunStatus.CANCELLED),
        ((F, C, C), CANCEL, RunStatus.CANCELLED),
        ((C, C, C), CANCEL, RunStatus.CANCELLED),
    ],
)
def test_derive(statuses: tuple[StageStatus, ...], desired: Desired, expected: RunStatus) -> None:
    assert derive(states(statuses), desired)[0] is expected


@pytest.mark.parametrize("desired", list(Desired))
def test_derive_never_finishes_a_run_with_a_live_or_due_stage(desired: Desired) -> None:
    for statuses in product(StageStatus, repeat=3):
        status, _ = derive(states(statuses), desired)
        if LIVE & set(statuses):
            assert not status.is_finished, statuses
        if status.is_finished and desired is not CANCEL:
            assert not {Q, B} & set(statuses), statuses


def test_a_failed_side_stage_fails_no_run() -> None:
    hole = StageState("base_eval", F, "gpu", attempt=3, message="out of memory", side=True)
    done = StageState("data", OK, "cpu", attempt=1)
    report = StageState("report", P, "cpu")
    assert derive([done, hole, report], RUN)[0] is RunStatus.RUNNING
    assert derive([done, hole], RUN) == (RunStatus.SUCCEEDED, "without base_eval, which failed: out of memory")
    assert derive([done, hole, StageState("sft", F, "gpu", attempt=1, message="x"), report], RUN)[0] is RunStatus.FAILED
    assert derive([done, hole, report], CANCEL)[0] is RunStatus.CANCELLED


def test_the_detail_says_what_a_run_is_doing() -> None:
    busy = StageState("base_train", R, "gpu", attempt=2, resumed_from_step=400)
    assert derive([busy], RUN) == (RunStatus.RUNNING, "base_train · attempt 2 · resumed at step 400")
    assert derive([StageState("data", Q, "cpu")], RUN) == (RunStatus.QUEUED, "data waits for a cpu worker")
    failed = StageState("data", F, "cpu", attempt=1, message="no folder /x")
    assert derive([failed], RUN) == (RunStatus.FAILED, "data failed: no folder /x")


def test_imports_only_the_standard_library() -> None:
    code = (
        "import sys; import controlplane.lifecycle; print([m for m in ('sqlalchemy', 'pydantic', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def states(statuses: tuple[StageStatus, ...]) -> list[StageState]:
    begun = {ST, R, X, B, PA, OK, F}
    return [StageState(f"stage{i}", s, "cpu", attempt=int(s in begun)) for i, s in enumerate(statuses)]
