"""The supervisor with real `python -m nanochat data` processes under torchrun."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane import claims, feeds, runs, views
from controlplane.db import SessionFactory
from controlplane.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus
from services.worker import processes
from services.worker.settings import Settings
from services.worker.supervisor import Supervisor, mark_of
from tests.controlplane.ledger import Ledger
from tests.worker.shards import ShardServer, shard_server


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[ShardServer]:
    with shard_server(tmp_path / "shards") as server:
        yield server


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)


@pytest.fixture
def settings(database_url: str, home: Path) -> Settings:
    return Settings(database_url=database_url, home=home, sync_every_s=0.05, stop_grace_s=20.0)


def supervise(ledger: Ledger, settings: Settings, run: str, draining: Callable[[], bool] = lambda: False) -> Supervisor:
    ledger.worker("w", "cpu")
    ledger.dispatch()
    with ledger.factory.begin() as s:
        claim = claims.claim(s, ledger.id_of(run, "data"), "w", process=processes.identity())
    assert claim is not None
    return Supervisor(ledger.factory, claim, settings, draining=draining)


def test_a_stage_from_claim_to_success(
    ledger: Ledger, settings: Settings, shards: ShardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOCHAT_DATABASE_URL", "postgresql://secret@nowhere/x")
    run = ledger.submit(**shards.overrides)
    assert supervise(ledger, settings, run).run() is StageStatus.SUCCEEDED
    out = settings.output_dir(run, "data", 1)
    spec = json.loads((out / "stage.json").read_text())
    assert (spec["run"], spec["stage"], spec["attempt"], spec["output_dir"]) == (run, "data", 1, str(out))
    with ledger.factory.begin() as s:
        stage = views.run_view(s, run).stages[0]
        kinds = {e.kind for e in feeds.events(s, run, limit=1000).items}
        lines = feeds.logs(s, run).items
    assert {a.name for a in stage.artifacts} == {"tok_shards", "shards", "tasks", "core", "results"}
    assert stage.attempts[0].exit_code == 0
    assert stage.progress is not None
    assert {"progress", "artifact", "stage_status", "run_status"} <= kinds
    assert "secret" not in (out / "stdout.log").read_text()
    assert len(lines) == len((out / "stdout.log").read_text().splitlines())
    assert ledger.dispatch() == ["tok_train"]
    assert ledger.moves(run, "data") == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_bad_input_is_told_and_not_tried_again(ledger: Ledger, settings: Settings, tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    run = ledger.submit(**{"data.source": {"kind": "folder", "path": str(missing)}})
    assert supervise(ledger, settings, run).run() is StageStatus.FAILED
    stage = ledger.stage(run, "data")
    assert stage.reason is Reason.BAD_INPUT
    assert str(missing) in stage.message
    assert ledger.run(run).status is RunStatus.FAILED
    assert str(missing) in ledger.run(run).detail


def test_cancel_reaches_a_running_stage(ledger: Ledger, settings: Settings, shards: ShardServer) -> None:
    shards.busy.set()
    run = ledger.submit(**shards.overrides)
    supervisor = supervise(ledger, settings, run)

    def cancel() -> None:
        shards.asked.wait(60)
        with ledger.factory.begin() as s:
            runs.cancel(s, run)

    with beside(cancel):
        assert supervisor.run() is StageStatus.CANCELLED
    assert ledger.run(run).status is RunStatus.CANCELLED
    attempt = ledger.attempt(supervisor.claim.fence)
    assert (attempt.status, attempt.exit_code) == (AttemptStatus.CANCELLED, 75)
    assert processes.marked(mark_of(supervisor.claim.fence)) == []


def test_an_immediate_cancel_kills_the_processes_without_waiting(
    ledger: Ledger, settings: Settings, shards: ShardServer
) -> None:
    shards.busy.set()
    run = ledger.submit(**shards.overrides)
    supervisor = supervise(ledger, settings.model_copy(update={"stop_grace_s": 600.0}), run)

    def freeze_and_cancel() -> None:
        shards.asked.wait(60)
        for process in processes.marked(mark_of(supervisor.claim.fence)):
            process.send_signal(signal.SIGSTOP)  # it could not follow a polite request
        with ledger.factory.begin() as s:
            runs.cancel(s, run, now=True)

    with beside(freeze_and_cancel):
        assert supervisor.run() is StageStatus.CANCELLED
    attempt = ledger.attempt(supervisor.claim.fence)
    assert (attempt.status, attempt.reason) == (AttemptStatus.CANCELLED, Reason.USER_ABORT)
    assert processes.marked(mark_of(supervisor.claim.fence)) == []


def test_a_draining_host_hands_the_stage_on(ledger: Ledger, settings: Settings, shards: ShardServer) -> None:
    shards.busy.set()
    run = ledger.submit(**shards.overrides)
    supervisor = supervise(ledger, settings, run, draining=shards.asked.is_set)
    assert supervisor.run() is StageStatus.QUEUED
    attempt = ledger.attempt(supervisor.claim.fence)
    assert (attempt.status, attempt.reason) == (AttemptStatus.PREEMPTED, Reason.HOST_DRAIN)
    assert ledger.moves(run, "data")[-2:] == ["STOPPING", "QUEUED"]
    assert ledger.stage(run, "data").failures == 0


def test_a_lost_fence_stops_the_processes_and_changes_no_status(
    ledger: Ledger, settings: Settings, shards: ShardServer
) -> None:
    shards.busy.set()
    run = ledger.submit(**shards.overrides)
    supervisor = supervise(ledger, settings, run)

    def take_over() -> None:
        shards.asked.wait(60)
        ledger.finish(supervisor.claim.fence, Reason.WORKER_LOST)

    with beside(take_over):
        assert supervisor.run() is None
    assert ledger.attempt(supervisor.claim.fence).reason is Reason.WORKER_LOST
    assert processes.marked(mark_of(supervisor.claim.fence)) == []


def test_a_stage_that_ignores_the_stop_file_is_killed(ledger: Ledger, settings: Settings, shards: ShardServer) -> None:
    """SIGSTOP keeps it from reading the stop file and from handling SIGTERM."""
    shards.busy.set()
    run = ledger.submit(**shards.overrides)
    hasty = settings.model_copy(update={"stop_grace_s": 0.2, "kill_grace_s": 0.2})
    supervisor = supervise(ledger, hasty, run)

    def freeze_and_cancel() -> None:
        shards.asked.wait(60)
        for process in processes.marked(mark_of(supervisor.claim.fence)):
            process.send_signal(signal.SIGSTOP)
        with ledger.factory.begin() as s:
            runs.cancel(s, run)

    with beside(freeze_and_cancel):
        assert supervisor.run() is StageStatus.CANCELLED
    assert processes.marked(mark_of(supervisor.claim.fence)) == []


class beside:
    """Run a function in a thread while the block runs. An exception of it is raised at the end of the block."""

    def __init__(self, what: Callable[[], None]):
        self._what, self._error = what, None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._what()
        except BaseException as err:
            self._error = err

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
