"""The process `python -m services.api`: it migrates, makes the first key, serves, and stops on SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services.api.__main__ import document

ROOT = Path(__file__).parents[2]
DEAD_BROKER = "redis://127.0.0.1:1/0"


def environment(**settings: str) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")}
    return clean | {f"NANOCHAT_{k}": v for k, v in settings.items()}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.api", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def serving(log: Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.api"],
            cwd=ROOT,
            env=environment(PORT=str(port), **settings),
            stdout=out,
            stderr=out,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                try:
                    http.get("/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield process, http
    finally:
        process.kill()
        process.wait()


def test_it_prints_its_openapi_document() -> None:
    assert run("openapi").stdout == document()


def test_a_missing_setting_is_named() -> None:
    done = run("serve")
    assert done.returncode == 2
    assert done.stderr.startswith("NANOCHAT_DATABASE_URL: ")
    assert "Traceback" not in done.stderr


@pytest.fixture
def admin_key(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "admin.key"


def test_from_an_empty_database_to_a_run_without_a_broker(empty_database_url: str, tmp_path: Path, admin_key: Path) -> None:
    """The broker is down all the time. The probe reports it, and runs are accepted nevertheless."""
    settings = {"DATABASE_URL": empty_database_url, "REDIS_URL": DEAD_BROKER, "HOME": str(tmp_path)}
    migrated = run("migrate", **settings)  # as a deployment does; `serve` migrates again, without effect
    assert migrated.returncode == 0, migrated.stderr
    assert not admin_key.exists()
    with serving(tmp_path / "log", **settings) as (process, http):
        assert stat.S_IMODE(admin_key.stat().st_mode) == 0o600
        ready = http.get("/ready")
        assert (ready.status_code, ready.json()["status"], ready.json()["broker"]) == (200, "degraded", "unreachable")
        key = {"Authorization": f"Bearer {admin_key.read_text().strip()}"}
        started = time.monotonic()
        run_id = http.post("/v1/runs", json={"recipe": "tiny"}, headers=key).json()["id"]
        assert time.monotonic() - started < 15
        deadline = time.monotonic() + 20
        while http.get(f"/v1/runs/{run_id}", headers=key).json()["stages"][0]["status"] != "QUEUED":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with http.stream("GET", f"/v1/runs/{run_id}/events", headers=key | {"Accept": "text/event-stream"}) as stream:
            next(stream.iter_text())
            process.send_signal(signal.SIGTERM)  # an open stream does not delay the shutdown
            assert process.wait(timeout=10) in (0, -signal.SIGTERM)
    log = (tmp_path / "log").read_text()
    assert admin_key.read_text().strip() not in log
    assert len(re.findall("dispatcher failed", log)) == 1, log  # logged once, not once per tick

    with serving(tmp_path / "log2", **settings) as (_, http):  # the key is still valid after a restart
        assert http.get(f"/v1/runs/{run_id}", headers=key).json()["id"] == run_id


def test_its_first_requests_may_come_together(database_url: str, tmp_path: Path, admin_key: Path) -> None:
    """As those of open pages do when the service is back."""
    settings = {"DATABASE_URL": database_url, "REDIS_URL": DEAD_BROKER, "HOME": str(tmp_path)}
    with serving(tmp_path / "log", **settings) as (_, http), ThreadPoolExecutor(12) as pool:
        http.headers["Authorization"] = f"Bearer {admin_key.read_text().strip()}"
        statuses = list(pool.map(lambda limit: http.get("/v1/runs", params={"limit": limit}).status_code, range(1, 13)))
    assert statuses == [200] * 12
