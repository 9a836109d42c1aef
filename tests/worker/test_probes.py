"""/health, /ready and /metrics of a real worker, and what its metrics say of an attempt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from sqlalchemy import text

from controlplane import workers
from controlplane.claims import Claim
from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason
from nanochat.contract.contract import EVENTS
from nanochat.contract.lease import LEASE
from services.standalone.ports import free_port
from services.worker.settings import Settings
from services.worker.telemetry import Telemetry
from tests.controlplane.ledger import Ledger
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.platform import platform as make_platform


def value(metrics: str, name: str) -> float | None:
    found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else None


def test_a_worker_answers_probes_and_a_restart_finds_its_port_free(database_url: str, redis_url: str, home: Path) -> None:
    for made in make_platform(database_url, redis_url, home):
        port = free_port()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            for _ in range(2):
                made.start_worker("cpu", NANOCHAT_PROBE_PORT=str(port), NANOCHAT_WORKER_ID="w")
                assert http.get("/health").json() == {"status": "ok"}
                until(lambda: http.get("/ready").status_code == 200, "the worker to be ready")
                until(lambda: (value(http.get("/metrics").text, "nanochat_ledger_up") or 0) == 1, "a heartbeat")
                metrics = http.get("/metrics").text
                assert (value(metrics, 'nanochat_loop_ticks_total{loop="keeper"}') or 0) >= 1
                assert (value(metrics, "nanochat_disk_free_bytes") or 0) > 0
                assert http.get("/").status_code == 404
                assert refused(made, port)
                made.kill_worker("cpu")


def refused(made: Platform, port: int) -> bool:
    """Whether a second worker with the same port says so and ends."""
    command = [sys.executable, "-m", "services.worker", "--queue", "cpu"]
    env = {**os.environ, **made.env, "NANOCHAT_PROBE_PORT": str(port), "NANOCHAT_WORKER_ID": "x"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 64 and f"127.0.0.1:{port} cannot be used" in done.stderr


@pytest.fixture
def claim(sessions: SessionFactory) -> Claim:
    ledger = Ledger(sessions)
    with sessions.begin() as s:
        workers.register(s, "w", queue="cpu", hostname="here", gpus=2)
    run = ledger.submit()
    ledger.dispatch()
    return ledger.begin(run, "data", "w")


def test_metrics_of_an_attempt(sessions: SessionFactory, claim: Claim, database_url: str, home: Path) -> None:
    settings = Settings(database_url=database_url, home=home)
    telemetry = Telemetry(settings, "w")
    ledger = Ledger(sessions)
    ledger.report(claim.fence, {"kind": "progress", "done": 1})
    out = settings.output_dir(claim.fence.run_id, "data", 1)
    out.mkdir(parents=True)
    lines = [json.dumps({"seq": seq}).encode() for seq in range(5)]
    (out / EVENTS).write_bytes(b"\n".join(lines) + b'\nnot an event\n{"seq": 9')
    (out / LEASE).touch()
    telemetry.update(sessions)
    metrics = generate_latest(telemetry.registry).decode()
    ids = f'{{attempt="1",run="{claim.fence.run_id}",stage="data"}}'
    assert value(metrics, "nanochat_attempts") == 1
    assert value(metrics, f"nanochat_spool_lag_events{ids}") == 4  # the ledger has number 0 of 0 to 4
    assert (value(metrics, f"nanochat_lease_remaining_seconds{ids}") or 0) > -60
    assert (value(metrics, f"nanochat_supervisor_silent_seconds{ids}") or 0) < 60
    ledger.finish(claim.fence, Reason.BAD_INPUT)
    telemetry.update(sessions)
    metrics = generate_latest(telemetry.registry).decode()
    assert value(metrics, "nanochat_attempts") == 0
    assert value(metrics, f'nanochat_attempts_ended_total{{reason="{Reason.BAD_INPUT}"}}') == 1
    assert (value(metrics, "nanochat_gpu_seconds_total") or 0) > 0
    assert ids not in metrics


def test_what_the_ledger_said_before_is_not_reported_while_it_is_silent(
    sessions: SessionFactory, claim: Claim, database_url: str, home: Path
) -> None:
    telemetry = Telemetry(Settings(database_url=database_url, home=home), "w")
    telemetry.update(sessions)
    with sessions.begin() as s:
        s.execute(text("ALTER TABLE attempt RENAME TO elsewhere"))
    with pytest.raises(Exception, match="attempt"):
        telemetry.update(sessions)
    metrics = generate_latest(telemetry.registry).decode()
    assert value(metrics, "nanochat_ledger_up") == 0
    assert value(metrics, "nanochat_attempts") is None
