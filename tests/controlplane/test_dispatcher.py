"""The dispatcher: published artifacts make stages ready, and wake-up calls may be lost, doubled or refused."""

from __future__ import annotations

import pytest

from controlplane import dispatcher, runs
from controlplane.lifecycle import Reason, RunStatus, StageStatus
from tests.controlplane.ledger import Ledger
from tests.waiting import until


def test_only_the_stage_without_inputs_is_called_first(ledger: Ledger) -> None:
    run = ledger.submit()
    assert ledger.dispatch() == ["data"]
    assert ledger.calls == [(ledger.id_of(run, "data"), "cpu")]
    assert ledger.dispatch() == []


def test_a_stage_starts_while_its_producer_still_runs(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("w", "cpu", slots=2)
    ledger.dispatch()
    data = ledger.begin(run, "data", "w")
    ledger.publish(data.fence, "tok_shards")
    assert ledger.dispatch() == ["tok_train"]
    assert ledger.stage(run, "data").status is StageStatus.RUNNING
    claim = ledger.claim(run, "tok_train", "w")
    assert claim is not None
    assert claim.inputs["shards"].path == "/runs/1/tok_shards"


def test_an_evaluation_that_fails_leaves_a_hole_in_the_report_and_no_failed_run(ledger: Ledger) -> None:
    run = ledger.submit()
    for queue in ("cpu", "gpu"):
        ledger.worker(queue, queue)
    called: list[str] = []
    while called := called[1:] + ledger.dispatch():
        stage = ledger.stage(run, called[0])
        claim = ledger.begin(run, stage.name, stage.queue)
        if stage.name == "base_eval":
            assert ledger.finish(claim.fence, Reason.BAD_INPUT) is StageStatus.FAILED
            continue
        if stage.name == "report":
            assert "base_eval" not in claim.inputs
            assert {"data", "base_train", "chat_eval_sft"} <= set(claim.inputs)
        ledger.publish(claim.fence, *claim.outputs)
        ledger.finish(claim.fence)
    ended = ledger.run(run)
    assert ended.status is RunStatus.SUCCEEDED
    assert "without Base eval, which failed" in ended.detail

    with ledger.factory.begin() as s:
        runs.retry(s, run)
    assert ledger.dispatch() == ["base_eval"]
    assert ledger.stage(run, "report").status is StageStatus.SUCCEEDED  # there is one until there is a better one
    ledger.complete(run, "base_eval", "gpu")
    assert ledger.run(run).status is RunStatus.RUNNING
    assert ledger.dispatch() == ["report"]
    claim = ledger.begin(run, "report", "cpu")
    assert "base_eval" in claim.inputs
    ledger.publish(claim.fence, *claim.outputs)
    assert ledger.finish(claim.fence) is StageStatus.SUCCEEDED
    assert (ledger.run(run).status, ledger.run(run).detail) == (RunStatus.SUCCEEDED, "")
    assert ledger.dispatch() == []


def test_a_retried_evaluation_that_fails_again_leaves_the_report_as_it_is(ledger: Ledger) -> None:
    run = ledger.submit()
    for queue in ("cpu", "gpu"):
        ledger.worker(queue, queue)
    called: list[str] = []
    while called := called[1:] + ledger.dispatch():
        stage = ledger.stage(run, called[0])
        claim = ledger.begin(run, stage.name, stage.queue)
        if stage.name != "base_eval":
            ledger.publish(claim.fence, *claim.outputs)
        ledger.finish(claim.fence, Reason.BAD_INPUT if stage.name == "base_eval" else Reason.COMPLETED)
    with ledger.factory.begin() as s:
        runs.retry(s, run)
    ledger.dispatch()
    assert ledger.finish(ledger.begin(run, "base_eval", "gpu").fence, Reason.BAD_INPUT) is StageStatus.FAILED
    assert ledger.dispatch() == []
    assert (ledger.run(run).status, ledger.stage(run, "report").attempt_no) == (RunStatus.SUCCEEDED, 1)


def test_outputs_of_a_failed_producer_start_no_stage(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("w", "cpu")
    ledger.dispatch()
    data = ledger.begin(run, "data", "w")
    ledger.publish(data.fence, "tok_shards")
    ledger.finish(data.fence, Reason.BAD_INPUT)
    assert ledger.dispatch() == []
    assert ledger.run(run).status is RunStatus.FAILED
    assert ledger.stage(run, "tok_train").status is StageStatus.PENDING


def test_a_lost_call_is_sent_again_once_a_worker_is_idle(ledger: Ledger) -> None:
    ledger.submit()
    assert ledger.dispatch() == ["data"]
    until(lambda: ledger.worker("w", "cpu") and ledger.dispatch() == ["data"], "the call to be sent again")


def test_a_busy_queue_is_not_flooded_with_calls(ledger: Ledger) -> None:
    first, _second = ledger.submit(), ledger.submit()
    ledger.worker("w", "cpu")
    assert ledger.dispatch() == ["data", "data"]
    ledger.begin(first, "data", "w")
    until(lambda: _overdue(ledger), "the second call to be overdue")
    ledger.worker("w", "cpu")  # a heartbeat
    assert ledger.dispatch() == []


def test_a_broker_that_refuses_calls_only_delays_them(ledger: Ledger) -> None:
    ledger.submit()

    def refuse(stage_id: int, queue: str) -> None:
        raise ConnectionError("no broker")

    with pytest.raises(ConnectionError):
        dispatcher.tick(ledger.factory, refuse, timing=ledger.timing)
    assert ledger.dispatch() == ["data"]


def test_a_stage_is_queued_again_when_its_back_off_ends(ledger: Ledger) -> None:
    run = ledger.submit()
    ledger.worker("w", "cpu")
    ledger.dispatch()
    claim = ledger.begin(run, "data", "w")
    assert ledger.finish(claim.fence, Reason.KILLED) is StageStatus.BACKOFF
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    assert ledger.stage(run, "data").message == Reason.KILLED.message


def test_a_paused_run_waits(ledger: Ledger) -> None:
    run = ledger.submit()
    with ledger.factory.begin() as s:
        runs.pause(s, run)
    assert ledger.dispatch() == []
    assert ledger.run(run).status is RunStatus.PAUSED
    with ledger.factory.begin() as s:
        runs.resume(s, run)
    assert ledger.dispatch() == ["data"]


def test_calls_are_sent_for_the_longest_waiting_stage_first(ledger: Ledger) -> None:
    waiting = [ledger.submit() for _ in range(3)]
    ledger.dispatch()
    assert [stage_id for stage_id, _ in ledger.calls] == [ledger.id_of(run, "data") for run in waiting]


def _overdue(ledger: Ledger) -> bool:
    from sqlalchemy import func, select

    from controlplane.loops import seconds
    from controlplane.models import Stage

    overdue = Stage.dispatched_at < func.clock_timestamp() - seconds(ledger.timing.redeliver_after)
    with ledger.factory.begin() as s:
        return s.scalar(select(func.count()).where(Stage.status == StageStatus.QUEUED, overdue)) == 1
