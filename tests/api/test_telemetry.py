"""GET /metrics of the control API, as Prometheus reads it."""

from __future__ import annotations

from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api, serving
from tests.waiting import until


def read(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with httpx.Client(base_url=api.url) as prometheus:  # without a key
        answer = prometheus.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def sample(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"nanochat_{name}", frozenset(labels.items())


def test_queues_workers_and_ends_of_attempts(database_url: str, redis_url: str, home: Path) -> None:
    with serving(database_url, redis_url, home) as own:
        worker = ManualWorker(own.ledger)
        first = own.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"]
        claim = worker.claim(first, "data")
        found = read(own)
        assert found[sample("database_up")] == found[sample("broker_up")] == 1
        assert found[sample("runs", status="RUNNING")] == 1
        assert found[sample("stages", queue="cpu", status="RUNNING")] == 1
        assert found[sample("stages", queue="gpu", status="PENDING")] > 1
        assert found[sample("worker_attempts", worker="manual-cpu", queue="cpu")] == 1
        assert found[sample("worker_slots", worker="manual-gpu", queue="gpu")] == 50
        assert 100 < found[sample("worker_lease_remaining_seconds", worker="manual-cpu", queue="cpu")] <= 120
        assert sample("worker_lease_remaining_seconds", worker="manual-gpu", queue="gpu") not in found
        assert 0 <= found[sample("loop_tick_age_seconds", loop="dispatcher")] < 30
        worker.finish(claim, Reason.CRASHED)
        found = read(own)
        assert found[sample("attempts_ended_total", reason="CRASHED")] == 1
        assert found[sample("attempts_ended_total", reason="STALLED")] == 0


def test_a_stage_that_waits_shows_in_its_queue_and_in_the_broker(database_url: str, redis_url: str, home: Path) -> None:
    with serving(database_url, redis_url, home) as own:
        run = own.client().submit("tiny")
        until(lambda: own.client().run(run.id).stages[0].status == "QUEUED", "the first stage to be queued")
        found = read(own)
        assert found[sample("queue_wait_seconds", queue="cpu")] > 0
        assert found[sample("queue_wait_seconds", queue="gpu")] == 0


def test_requests_are_counted_by_route(api: Api) -> None:
    before = read(api)
    for _ in range(3):
        api.http.get("/v1/runs/r_0123456789abcdef")
    api.http.get("/made/up/by/a/client")
    api.http.request("PROPFIND", "/v1/runs")
    after = read(api)
    missing = sample("http_requests_total", method="GET", route="/v1/runs/{run_id}", status="404")
    assert after[missing] - before.get(missing, 0) == 3
    assert after[sample("http_requests_total", method="GET", route="unknown", status="404")] >= 1
    assert after[sample("http_requests_total", method="unknown", route="/v1/runs", status="405")] >= 1
    assert after[sample("http_request_seconds_count", method="GET", route="/v1/runs/{run_id}")] >= 3


def test_what_is_not_known_is_missing_instead_of_zero(database_url: str, home: Path) -> None:
    with serving(database_url, "redis://127.0.0.1:1/0", home) as own:
        found = read(own)
        assert found[sample("broker_up")] == 0
        assert not [name for name, _ in found if name == "nanochat_broker_messages"]
        with own.ledger.begin() as session:
            session.connection().exec_driver_sql("ALTER TABLE attempt RENAME TO gone")
        found = read(own)
        assert found[sample("database_up")] == 0
        assert not [name for name, _ in found if name == "nanochat_runs"]
