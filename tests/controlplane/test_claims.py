"""Claims, fences and leases: who may write, and what happens to a stage when an attempt ends."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from controlplane import claims, runs, workers
from controlplane.claims import Claim
from controlplane.errors import Conflict, FenceLost, NotFound
from controlplane.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus
from controlplane.models import Attempt
from controlplane.timing import Timing
from tests.controlplane.ledger import Ledger, checkpoint
from tests.waiting import until


def test_of_twenty_threads_that_claim_one_stage_one_wins(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.dispatch()
    names = [ledger.worker(f"w{i}", "cpu") for i in range(20)]
    won = at_once([lambda name=name: ledger.claim(run, "data", name) for name in names])
    assert len([claim for claim in won if claim is not None]) == 1
    with ledger.factory.begin() as s:
        assert s.scalar(select(func.count()).select_from(Attempt)) == 1
    assert ledger.moves(run, "data") == ["QUEUED", "STARTING"]


def test_a_worker_holds_no_more_than_its_slots(ledger: Ledger) -> None:
    first, second, third = ledger.submit(), ledger.submit(), ledger.submit()
    ledger.dispatch()
    ledger.worker("w", "cpu", slots=2)
    won = at_once([lambda run=run: ledger.claim(run, "data", "w") for run in (first, second, third)])
    assert len([claim for claim in won if claim is not None]) == 2


@pytest.mark.parametrize("turn", range(5))
def test_cancel_and_claim_race(ledger: Ledger, turn: int) -> None:
    run = ledger.submit()
    ledger.dispatch()
    ledger.worker("w", "cpu")

    def cancel() -> None:
        with ledger.factory.begin() as s:
            runs.cancel(s, run)

    _, claim = at_once([cancel, lambda: ledger.claim(run, "data", "w")])
    if claim is None:
        assert ledger.stage(run, "data").status is StageStatus.CANCELLED
        assert ledger.run(run).status is RunStatus.CANCELLED
        return
    assert ledger.stage(run, "data").status is StageStatus.STOPPING
    assert ledger.run(run).status is RunStatus.STOPPING
    with ledger.factory.begin() as s:
        assert claims.renew(s, claim.fence).stop is Reason.USER_CANCEL
    assert ledger.finish(claim.fence, Reason.USER_CANCEL) is StageStatus.CANCELLED
    assert ledger.run(run).status is RunStatus.CANCELLED


def test_a_write_with_an_old_fence_is_refused(ledger: Ledger) -> None:
    run, old = started_run(ledger)
    ledger.finish(old.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    new = ledger.begin(run, "data", "w")
    assert new.fence.attempt_no == 2
    for write in (
        lambda s: claims.renew(s, old.fence),
        lambda s: claims.started(s, old.fence, process={}),
        lambda s: claims.stopping(s, old.fence, Reason.HOST_DRAIN),
        lambda s: claims.finish(s, old.fence, Reason.COMPLETED),
    ):
        with pytest.raises(FenceLost), ledger.factory.begin() as s:
            write(s)
    assert ledger.stage(run, "data").status is StageStatus.RUNNING
    assert ledger.attempt(old.fence).reason is Reason.KILLED


def test_no_claim_without_a_registered_worker_of_the_queue(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.dispatch()
    assert ledger.claim(run, "data", "nobody") is None
    assert ledger.claim(run, "data", ledger.worker("g", "gpu")) is None
    ledger.worker("w", "cpu")
    with ledger.factory.begin() as s:
        workers.beat(s, "w", draining=True)
    assert ledger.claim(run, "data", "w") is None
    with pytest.raises(NotFound), ledger.factory.begin() as s:
        claims.claim(s, 10**9, "w")


@pytest.mark.parametrize(
    ("reason", "status", "attempt"),
    [
        (Reason.COMPLETED, StageStatus.SUCCEEDED, AttemptStatus.SUCCEEDED),
        (Reason.BAD_INPUT, StageStatus.FAILED, AttemptStatus.FAILED),
        (Reason.NONFINITE, StageStatus.FAILED, AttemptStatus.FAILED),
        (Reason.CRASHED, StageStatus.BACKOFF, AttemptStatus.FAILED),
        (Reason.KILLED, StageStatus.BACKOFF, AttemptStatus.FAILED),
        (Reason.WORKER_LOST, StageStatus.BACKOFF, AttemptStatus.LOST),
        (Reason.HOST_DRAIN, StageStatus.QUEUED, AttemptStatus.PREEMPTED),
    ],
)
def test_the_reason_of_an_attempt_decides_the_status_of_its_stage(
    ledger: Ledger, reason: Reason, status: StageStatus, attempt: AttemptStatus
) -> None:
    run, claim = started_run(ledger)
    assert ledger.finish(claim.fence, reason) is status
    assert ledger.attempt(claim.fence).status is attempt
    assert ledger.stage(run, "data").reason is reason


def test_an_attempt_may_finish_before_it_is_reported_as_started(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("w", "cpu")
    ledger.dispatch()
    claim = ledger.claim(run, "data", "w")
    assert claim is not None
    assert ledger.finish(claim.fence) is StageStatus.SUCCEEDED


def test_a_stage_fails_after_three_failures_without_progress(ledger: Ledger) -> None:
    run, _ = started_run(ledger)
    ends = [again(ledger, run, Reason.KILLED) for _ in range(3)]
    assert ends == [StageStatus.BACKOFF, StageStatus.BACKOFF, StageStatus.FAILED]
    assert ledger.run(run).status is RunStatus.FAILED
    assert "3 failures" in ledger.stage(run, "data").message


def test_a_stage_fails_after_two_crashes_without_progress(ledger: Ledger) -> None:
    run, _ = started_run(ledger)
    assert [again(ledger, run, Reason.CRASHED) for _ in range(2)] == [StageStatus.BACKOFF, StageStatus.FAILED]


def test_checkpoint_progress_resets_the_count_of_failures(ledger: Ledger) -> None:
    run, _ = started_run(ledger)
    for step in (10, 20, 30, 40, 50):
        assert again(ledger, run, Reason.CRASHED, step) is StageStatus.BACKOFF
    assert again(ledger, run, Reason.CRASHED, 50) is StageStatus.FAILED  # a checkpoint of the same step is no progress


def test_a_drained_worker_counts_as_no_failure(ledger: Ledger) -> None:
    run, _ = started_run(ledger)
    assert [again(ledger, run, Reason.HOST_DRAIN) for _ in range(5)] == [StageStatus.QUEUED] * 5
    assert ledger.stage(run, "data").failures == 0


@pytest.mark.parametrize("reason", [Reason.DISK_FULL, Reason.READ_ONLY])
def test_a_fault_of_the_storage_waits_for_people_as_long_as_it_takes(ledger: Ledger, reason: Reason) -> None:
    run, _ = started_run(ledger)
    for _ in range(Timing().max_failures + 1):
        assert again(ledger, run, reason) is StageStatus.BACKOFF
        assert ledger.stage(run, "data").failures == 0
    assert ledger.run(run).status is RunStatus.RUNNING
    assert reason.message in ledger.run(run).detail
    assert again(ledger, run, Reason.COMPLETED) is StageStatus.SUCCEEDED


def test_a_retry_resumes_from_the_furthest_checkpoint(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, checkpoint(10), checkpoint(20))
    ledger.finish(claim.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    retried = ledger.claim(run, "data", "w")
    assert retried is not None
    assert [c.step for c in retried.checkpoints] == [20, 10]
    assert retried.checkpoints[0].artifact.path.endswith("step_000020")


def test_a_user_can_retry_a_failed_stage(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    with pytest.raises(Conflict, match="no failed stage"), ledger.factory.begin() as s:
        runs.retry(s, run)
    ledger.finish(claim.fence, Reason.BAD_INPUT)
    assert ledger.run(run).finished_at is not None
    with ledger.factory.begin() as s:
        runs.retry(s, run)
    assert ledger.run(run).status is RunStatus.RUNNING
    assert ledger.run(run).finished_at is None
    assert ledger.dispatch() == ["data"]


def test_pause_frees_the_worker_and_resume_continues(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    with ledger.factory.begin() as s:
        runs.pause(s, run)
    with ledger.factory.begin() as s:
        assert claims.renew(s, claim.fence).stop is Reason.USER_PAUSE
    assert ledger.finish(claim.fence, Reason.USER_PAUSE) is StageStatus.PAUSED
    assert ledger.run(run).status is RunStatus.PAUSED
    with ledger.factory.begin() as s:
        runs.resume(s, run)
    assert ledger.dispatch() == ["data"]
    assert ledger.begin(run, "data", "w").fence.attempt_no == 2


def test_cancel_is_final(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    with ledger.factory.begin() as s:
        runs.cancel(s, run)
    assert ledger.finish(claim.fence, Reason.KILLED) is StageStatus.CANCELLED
    for steer in (runs.cancel, runs.pause, runs.resume, runs.retry):
        with pytest.raises(Conflict), ledger.factory.begin() as s:
            steer(s, run)
    assert ledger.dispatch() == []


def test_back_off_grows() -> None:
    timing = Timing()
    delays = [timing.retry_delay(n) for n in range(1, 8)]
    assert delays[0] <= 5
    assert delays == sorted(delays)
    assert [timing.storage_delay(n) for n in (1, 2, 3, 10)] == [60, 120, 300, 300]


def started_run(ledger: Ledger) -> tuple[str, Claim]:
    """A run whose first stage runs on worker `w`."""
    run = ledger.submit()
    ledger.worker("w", "cpu")
    ledger.dispatch()
    return run, ledger.begin(run, "data", "w")


def again(ledger: Ledger, run: str, reason: Reason, step: int | None = None) -> StageStatus:
    """End the live attempt of `data`, or start the next one and end it; first save a checkpoint at `step` if given."""
    stage = ledger.stage(run, "data")
    if not stage.status.is_live:
        until(lambda: ledger.dispatch() or ledger.stage(run, "data").status is StageStatus.QUEUED, "the retry")
        ledger.begin(run, "data", "w")
        stage = ledger.stage(run, "data")
    with ledger.factory.begin() as s:
        attempt = s.scalars(select(Attempt).where(Attempt.stage_id == stage.id, Attempt.no == stage.attempt_no)).one()
        fence = claims.Fence(run, stage.id, attempt.id, attempt.no)
    if step is not None:
        ledger.report(fence, checkpoint(step, attempt=fence.attempt_no))
    return ledger.finish(fence, reason)


def at_once(jobs: list[Callable[[], object]]) -> list[object]:
    """Run all jobs at the same moment. Returns their results in order; raises if one failed."""
    barrier = threading.Barrier(len(jobs))
    results: list[object] = [None] * len(jobs)

    def one(i: int) -> None:
        barrier.wait()
        try:
            results[i] = jobs[i]()
        except BaseException as err:
            results[i] = err

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
