"""The GPUs of an attempt are sampled beside it, with a driver's tool that lists four GPUs, and never at its cost."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controlplane import feeds
from controlplane.db import SessionFactory, make_engine
from controlplane.db import sessions as make_sessions
from controlplane.hardware import hardware as stored
from controlplane.hardware_schemas import DeviceView
from controlplane.lifecycle import StageStatus
from services.worker import hardware, machine, sampling
from services.worker.sampling import Sampling
from services.worker.settings import Settings
from services.worker.supervisor import Supervisor
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import started_run
from tests.waiting import until
from tests.worker.shards import ShardServer, shard_server
from tests.worker.test_supervisor import supervise

FOUR = """#!/bin/sh
case $* in *uuid*) for i in 0 1 2 3; do echo "$i, GPU-0000000$i-aaaa"; done; exit;; esac
for i in 0 1 2 3; do echo "$i, NVIDIA H100 80GB HBM3, 7168$i, 81559, 60$i.25, 700.00, 6$i, 9$i"; done
"""
Tool = Callable[[str], Path]


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Writes the driver's tool."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sampling, "EVERY_S", 0.05)
    monkeypatch.setattr(sampling, "FIRST_S", 0.05)

    def write(text: str) -> Path:
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


def read(ledger: Ledger, run: str) -> list[DeviceView]:
    with ledger.factory() as session:
        return stored(session, run).devices


@pytest.mark.parametrize(
    ("devices", "numbers"), [(["2", "3"], [2, 3]), (["GPU-00000001", "GPU-00000003-aaaa"], [1, 3]), ([], []), (["MIG-1"], [])]
)
def test_only_the_gpus_of_the_attempt_are_sampled(ledger: Ledger, tool: Tool, devices: list[str], numbers: list[int]) -> None:
    tool(FOUR)
    run, claim = started_run(ledger)
    sampler = Sampling(ledger.factory, claim.fence, devices)
    sampler.start()
    until(lambda: any(len(d.t) > 2 for d in read(ledger, run)), "samples")
    sampler.end()
    host, *gpus = read(ledger, run)
    assert (host.gpu, [d.gpu for d in gpus]) == (None, numbers)
    assert host.activity_pct is not None
    assert all(0 <= value <= 100 for value in host.activity_pct.mean if value is not None)
    assert host.memory_gib is not None
    for gpu in gpus:
        figures = [figure and figure.mean[0] for figure in (gpu.activity_pct, gpu.memory_gib, gpu.power_w, gpu.temperature_c)]
        assert figures == [90 + (gpu.gpu or 0), pytest.approx(70.0, abs=0.01), 600.25 + (gpu.gpu or 0), 60 + (gpu.gpu or 0)]


def test_a_tool_that_fails_is_skipped_and_samples_go_on_when_it_works(ledger: Ledger, tool: Tool) -> None:
    tool("#!/bin/sh\nexit 9\n")
    run, claim = started_run(ledger)
    sampler = Sampling(ledger.factory, claim.fence, ["GPU-00000001"], "joined")
    sampler.start()
    until(lambda: [d.gpu for d in read(ledger, run)] == [None], "samples of the machine")
    tool(FOUR)
    until(lambda: [(d.worker, d.gpu) for d in read(ledger, run)] == [("joined", None), ("joined", 1)], "samples of the GPU")
    sampler.end()


def test_samples_wait_while_the_ledger_is_away_and_the_oldest_are_dropped(
    ledger: Ledger, tool: Tool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool(FOUR)
    monkeypatch.setattr(sampling, "KEPT", 6)  # of two devices
    run, claim = started_run(ledger)
    engine = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    sampler = Sampling(make_sessions(engine), claim.fence, ["0"])
    for _ in range(5):
        assert not sampler._turn()
    assert read(ledger, run) == []
    sampler._factory = ledger.factory
    sampler._turn()
    assert [len(d.t) for d in read(ledger, run)] == [3, 3]
    sampler._turn()
    assert [len(d.t) for d in read(ledger, run)] == [4, 4]


def test_sampling_ends_with_its_attempt(ledger: Ledger, tool: Tool) -> None:
    tool(FOUR)
    run, claim = started_run(ledger)
    sampler = Sampling(ledger.factory, claim.fence, ["0"])
    sampler._turn()
    ledger.finish(claim.fence)
    sampler._turn()
    assert sampler._turns.ending
    assert [len(d.t) for d in read(ledger, run)] == [1, 1]


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[ShardServer]:
    with shard_server(tmp_path / "shards") as server:
        yield server


def test_a_driver_that_hangs_costs_nothing_but_samples(
    ledger: Ledger,
    tool: Tool,
    database_url: str,
    home: Path,
    tmp_path: Path,
    shards: ShardServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even a call that cannot be given up: the stage runs, is stored and ends while the tool still hangs."""
    hanging = tmp_path / "hanging"
    tool(f"#!/bin/sh\necho $$ > {hanging}\nexec sleep 600\n")
    monkeypatch.setattr(machine, "PATIENCE_S", 600.0)
    run = ledger.submit(**shards.overrides)
    made = supervise(ledger, Settings(database_url=database_url, home=home, sync_every_s=0.05), run)
    supervisor = Supervisor(ledger.factory, made.claim, made.settings, devices=["0"])
    try:
        assert supervisor.run() is StageStatus.SUCCEEDED
        os.kill(int(hanging.read_text()), 0)  # it still hangs
        with ledger.factory() as session:
            assert "progress" in {event.kind for event in feeds.events(session, run, limit=1000).items}
        assert read(ledger, run) == []
    finally:
        os.kill(int(hanging.read_text()), signal.SIGKILL)


def test_the_supervisor_samples_while_its_stage_runs(
    ledger: Ledger, tool: Tool, database_url: str, home: Path, shards: ShardServer
) -> None:
    tool(FOUR)
    run = ledger.submit(**shards.overrides)
    made = supervise(ledger, Settings(database_url=database_url, home=home, sync_every_s=0.05), run)
    assert Supervisor(ledger.factory, made.claim, made.settings, devices=["1"]).run() is StageStatus.SUCCEEDED
    assert [(d.worker, d.gpu) for d in read(ledger, run)] == [("w", None), ("w", 1)]


def test_gpus_are_named_by_number_without_asking_the_driver(tool: Tool) -> None:
    tool("#!/bin/sh\nexit 9\n")
    assert hardware.numbers(["6", "7"], timeout_s=1) == [6, 7]
    assert hardware.numbers([], timeout_s=1) == []
