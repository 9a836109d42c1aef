"""kill -9 of a worker: the attempt is lost at once, without waiting for its lease; the stage and the run succeed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controlplane.lifecycle import AttemptStatus, Reason, StageStatus
from services.worker.processes import MARK
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.shards import ShardServer, shard_server


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[ShardServer]:
    with shard_server(tmp_path / "shards") as server:
        yield server


def test_a_killed_worker_leaves_no_process_and_its_successor_goes_on(platform: Platform, shards: ShardServer) -> None:
    shards.busy.set()
    platform.start_loops()
    platform.start_worker("cpu")
    run = platform.submit(**shards.overrides)
    assert shards.asked.wait(60)
    assert processes_of(run)

    platform.kill_worker("cpu")
    until(lambda: not processes_of(run), "the stage's processes to die with their supervisor")

    shards.busy.clear()
    platform.start_worker("cpu")
    data = until(lambda: (stage := platform.stage(run, "data")).status is StageStatus.SUCCEEDED and stage, "data", 90)
    assert [(a.no, a.status, a.reason) for a in data.attempts] == [
        (1, AttemptStatus.LOST, Reason.WORKER_LOST),
        (2, AttemptStatus.SUCCEEDED, Reason.COMPLETED),
    ]
    lease_s = platform.settings.lease_ttl_s
    first, second = data.attempts
    assert first.finished_at is not None
    assert second.started_at is not None
    assert (second.started_at - first.finished_at).total_seconds() < lease_s / 4

    # SIGTERM in the middle of the next stages: they end in good order or had ended already.
    assert platform.stop_worker("cpu") == 0
    assert not processes_of(run)


def processes_of(run: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(run) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
