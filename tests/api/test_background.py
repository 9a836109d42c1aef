"""The control loops in the server's threads, and the probes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest
import redis

from services.api.background import LoopThread
from tests.api.server import Api, serving


def calls(broker: redis.Redis, queue: str) -> int:
    return int(broker.llen(f"nanoctl:{queue}"))  # type: ignore[arg-type]


def wait_for(what: str, seconds: float, is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_submitted_run_wakes_a_worker_at_once(api: Api, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.app.state.dispatcher, "_period_s", 3600.0)  # so that no tick comes by itself
    with redis.Redis.from_url(redis_url) as broker:
        for n in (1, 2, 3):
            assert api.http.post("/v1/runs", json={"recipe": "tiny"}).status_code == 201
            wait_for(f"call {n}", 30, lambda n=n: calls(broker, "cpu") == n)  # type: ignore[misc]


def test_probes_need_no_key_and_report_broker_and_database(api: Api) -> None:
    with httpx.Client(base_url=api.url) as anybody:
        assert anybody.get("/health").json() == {"status": "ok"}
        ready = anybody.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "database": "ok", "broker": "ok"})


def test_it_is_not_ready_while_the_database_is_old_or_unreachable(database_url: str, redis_url: str, home: Path) -> None:
    with serving(database_url, redis_url, home) as own:
        with own.ledger.begin() as session:
            session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = 'older'")
        ready = own.http.get("/ready")
        assert (ready.status_code, ready.json()["database"]) == (503, "schema is not current")
        name = database_url.rpartition("/")[2]
        elsewhere = database_url.removesuffix(name) + "nanochat"
        _forbid(elsewhere, name)
        ready = own.http.get("/ready")
        assert (ready.status_code, ready.json()["database"]) == (503, "unreachable")
        refused = own.http.get("/v1/runs")
        assert (refused.status_code, refused.json()["type"].rpartition(":")[2]) == (503, "database-unavailable")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["retry-after"] == "5"
        assert own.http.get("/health").status_code == 200
        _allow(elsewhere, name)
        wait_for("the database was not used again", 10, lambda: own.http.get("/v1/runs").status_code == 200)


def _forbid(url: str, database: str) -> None:
    _admin(url, f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    _admin(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")


def _allow(url: str, database: str) -> None:
    _admin(url, f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


def _admin(url: str, statement: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


def test_a_loop_continues_after_a_failure_and_stops_when_told(caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[int] = []
    again = threading.Event()

    def tick() -> None:
        rounds.append(1)
        if len(rounds) == 1:
            raise RuntimeError("once")
        again.set()

    loop = LoopThread("counter", tick, period_s=0.01)
    loop.start()
    loop.wake()
    assert again.wait(10)
    loop.stop()
    done = len(rounds)
    assert "counter failed and will be tried again" in caplog.text
    loop.wake()
    assert len(rounds) == done
