"""SIGSTOP of a worker beyond its lease: its stage ends by itself before another attempt can begin, and then goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil

from controlplane.lifecycle import StageStatus
from tests.faults.test_worker_dies import processes_of
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.shards import shard_server


def test_the_stage_of_a_frozen_worker_ends_before_its_lease_can_be_taken(platform: Platform, tmp_path: Path) -> None:
    with shard_server(tmp_path / "shards") as shards:
        shards.busy.set()
        shards.retry_after = 1
        platform.start_loops()
        worker = platform.start_worker("cpu", NANOCHAT_LEASE_TTL_S="4", NANOCHAT_LEASE_GRACE_S="2")
        run = platform.submit(**shards.overrides)
        assert shards.asked.wait(60)
        stage = set(processes_of(run))
        assert stage

        frozen = [p for p in psutil.Process(worker.pid).children(recursive=True) if p not in stage]
        for process in [psutil.Process(worker.pid), *frozen]:
            process.send_signal(signal.SIGSTOP)
        until(lambda: not processes_of(run), "the stage to end without its supervisor", 60)
        data = platform.stage(run, "data")
        assert (data.status, len(data.attempts)) == (StageStatus.RUNNING, 1)  # nobody has taken it yet

        shards.busy.clear()
        for process in [*frozen, psutil.Process(worker.pid)]:
            process.send_signal(signal.SIGCONT)
        until(lambda: platform.stage(run, "data").status is StageStatus.SUCCEEDED, "the next attempt", 90)
        assert len(platform.stage(run, "data").attempts) == 2
