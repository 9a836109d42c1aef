"""A run's records over HTTP: metric series that keep spikes, pages by cursor, and streams without gaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from client import sse
from controlplane import hardware
from controlplane.hardware import MACHINE, Sample
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


@pytest.fixture
def run_id(api: Api) -> str:
    return str(api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"])


def cancel(api: Api, run_id: str) -> None:
    api.http.post(f"/v1/runs/{run_id}/cancel")


def test_curves_are_bucketed_and_keep_the_spike(api: Api, worker: ManualWorker, run_id: str) -> None:
    claim = worker.claim(run_id, "data")
    for step in range(100):
        worker.report(
            claim, "metric", step=step, values={"loss": 50.0 if step == 33 else 4.0, "mfu": "nan" if step == 99 else 0.4}
        )
    body = api.http.get(f"/v1/runs/{run_id}/metrics", params={"max_points": 10, "keys": ["loss"]}).json()
    (series,) = body["series"]
    assert (series["stage"], series["key"]) == ("data", "loss")
    assert len(series["points"]) <= 10
    assert max(p["max"] for p in series["points"]) == 50.0
    assert (series["points"][0]["step"], series["points"][-1]["step"]) == (0, 99)
    both = api.http.get(f"/v1/runs/{run_id}/metrics", params={"stage": "data"}).json()["series"]
    assert {s["key"]: s["points"][-1]["last"] for s in both} == {"loss": 4.0, "mfu": None}
    stage = api.http.get(f"/v1/runs/{run_id}").json()["stages"][0]
    assert stage["latest"] == {"loss": 4.0, "mfu": "nan"}


def test_a_range_of_steps_is_in_finer_buckets(api: Api, worker: ManualWorker, run_id: str) -> None:
    claim = worker.claim(run_id, "data")
    for step in range(100):
        values = {"loss": "nan" if step == 47 else 4.0} | ({"val_bpb": 1.0} if step < 10 else {})
        worker.report(claim, "metric", step=step, values=values)

    def ask(**params: int) -> dict[str, dict[str, Any]]:
        found = api.http.get(f"/v1/runs/{run_id}/metrics", params={"max_points": 10, **params}).raise_for_status().json()
        return {series["key"]: series for series in found["series"]}

    whole, part = ask(), ask(from_step=41, to_step=50)
    assert whole["loss"]["bucketed"]
    assert list(part) == ["loss"]  # the other has no point there
    assert not part["loss"]["bucketed"]
    assert [p["step"] for p in part["loss"]["points"]] == list(range(41, 51))
    assert [p["step"] for p in part["loss"]["points"] if p["nonfinite"]] == [47]
    assert ask(from_step=95)["loss"]["points"][0]["step"] == 95
    assert [p["step"] for p in ask(to_step=1)["val_bpb"]["points"]] == [0, 1]
    refused = api.http.get(f"/v1/runs/{run_id}/metrics", params={"from_step": 50, "to_step": 49})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {"field": "query from_step", "message": "must not be greater than to_step, which is 49"}
    ]


def test_the_hardware_of_a_run_is_told_by_device(api: Api, worker: ManualWorker, run_id: str) -> None:
    path = f"/v1/runs/{run_id}/hardware"
    assert api.http.get(path).json() == {"devices": []}
    claim = worker.claim(run_id, "data")
    with api.ledger.begin() as session:
        for i in range(50):
            hardware.store(session, claim.fence, [Sample(1.7e9 + 10 * i, 3, 99.0 if i == 30 else 20.0, 70.5, 600.0, 61.0)])
        hardware.store(session, claim.fence, [Sample(1.7e9, MACHINE, 12.0, 30.0)], worker_id="another")
    another, gpu = api.http.get(path, params={"max_points": 10, "stage": "data"}).json()["devices"]
    assert (gpu["gpu"], len(gpu["t"]), max(gpu["activity_pct"]["max"])) == (3, 10, 99.0)
    assert (gpu["activity_pct"]["mean"][6], gpu["power_w"]["min"]) == (35.8, [600.0] * 10)
    assert (another["worker"], another["gpu"], another["power_w"]) == ("another", None, None)
    assert another["memory_gib"] == {"mean": [30.0], "min": [30.0], "max": [30.0]}
    assert api.http.get(path, params={"stage": "sft"}).json() == {"devices": []}


def test_events_and_logs_come_by_pages_and_by_kind(api: Api, worker: ManualWorker, run_id: str) -> None:
    claim = worker.claim(run_id, "data")
    worker.report(claim, "progress", done=1, total=4, unit="shard", eta_s=3.0)
    for n in range(5):
        worker.report(claim, "log", level="info", message=f"message {n}")
    worker.log(claim, 0, "one", "two\u2028still two", "three\0")
    events, after = [], 0
    while True:
        page = api.http.get(
            f"/v1/runs/{run_id}/events", params={"after": after, "limit": 3, "kinds": ["log", "progress"]}
        ).json()
        if not page["items"]:
            break
        events += page["items"]
        after = page["next_after"]
    assert [e["kind"] for e in events] == ["progress"] + ["log"] * 5
    assert [e["data"].get("message") for e in events[1:]] == [f"message {n}" for n in range(5)]
    assert {(e["stage"], e["attempt"]) for e in events} == {("data", 1)}
    ledger_said = api.http.get(f"/v1/runs/{run_id}/events", params={"kinds": "stage_status"}).json()["items"]
    assert [e["data"]["to"] for e in ledger_said] == ["QUEUED", "STARTING", "RUNNING"]
    lines = api.http.get(f"/v1/runs/{run_id}/logs", params={"stage": "data", "attempt": 1}).json()
    assert [line["line"] for line in lines["items"]] == ["one", "two\u2028still two", "three\ufffd"]
    last = api.http.get(f"/v1/runs/{run_id}/logs", params={"tail": True, "limit": 2}).json()
    assert last == {**lines, "items": lines["items"][-2:]}
    assert api.http.get(f"/v1/runs/{run_id}/logs", params={"stage": "sft"}).json() == {"items": [], "gaps": [], "next_after": 0}
    stage = api.http.get(f"/v1/runs/{run_id}").json()["stages"][0]
    assert stage["progress"] == {"done": 1, "total": 4, "unit": "shard", "eta_s": 3.0, "note": None, "fraction": 0.25}


def messages(response: httpx.Response) -> Iterator[ServerSentEvent]:
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    return sse.events(response)


def test_a_stream_sends_old_lines_then_new_ones_and_ends_with_the_run(api: Api, worker: ManualWorker, run_id: str) -> None:
    claim = worker.claim(run_id, "data")
    worker.log(claim, 0, *(f"old {n}" for n in range(1200)))  # more than a stream reads at a time
    with api.http.stream("GET", f"/v1/runs/{run_id}/logs", headers=STREAM) as response:
        stream = messages(response)
        got = [next(stream) for _ in range(1200)]
        assert '"line":"old 1199"' in got[-1].data
        worker.log(claim, 1200, "new")
        assert '"line":"new"' in next(stream).data
        worker.finish(claim)
        cancel(api, run_id)
        last = next(stream)
        assert (last.event, int(last.id)) == ("end", int(got[-1].id) + 1)
        assert list(stream) == []
    assert [int(e.id) for e in got] == sorted({int(e.id) for e in got})


def test_a_stream_resumes_after_last_event_id(api: Api, worker: ManualWorker, run_id: str) -> None:
    claim = worker.claim(run_id, "data")
    for n in range(6):
        worker.report(claim, "log", level="info", message=str(n))
    worker.finish(claim)
    cancel(api, run_id)
    path = f"/v1/runs/{run_id}/events"
    with api.http.stream("GET", path, headers=STREAM, params={"kinds": "log"}) as response:
        whole = list(messages(response))
    assert [e.event for e in whole] == ["message"] * 6 + ["end"]
    with api.http.stream("GET", path, headers=STREAM | {"Last-Event-ID": whole[3].id}, params={"kinds": "log"}) as response:
        rest = list(messages(response))
    assert [(e.event, e.id, e.data) for e in rest] == [(e.event, e.id, e.data) for e in whole[4:]]


def test_a_stream_misses_nothing_while_two_stages_write_at_once(api: Api, worker: ManualWorker, run_id: str) -> None:
    data = worker.claim(run_id, "data")
    worker.report(data, "artifact", name="tok_shards", path="/a", sha256="0" * 64)
    tokenizer = worker.claim(run_id, "tok_train")
    barrier = threading.Barrier(2)

    def write(claim: object) -> None:
        barrier.wait()
        for n in range(40):
            worker.report(claim, "log", level="info", message=str(n))  # type: ignore[arg-type]

    with api.http.stream("GET", f"/v1/runs/{run_id}/events", headers=STREAM, params={"kinds": "log"}) as response:
        stream = messages(response)
        threads = [threading.Thread(target=write, args=(claim,)) for claim in (data, tokenizer)]
        for thread in threads:
            thread.start()
        ids = [int(next(stream).id) for _ in range(80)]
        for thread in threads:
            thread.join()
    assert ids == sorted(set(ids))


def test_an_idle_stream_is_kept_alive(api: Api, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.streams.KEEP_ALIVE_S", 0.2)
    with api.http.stream("GET", f"/v1/runs/{run_id}/logs", headers=STREAM) as response:
        text = response.iter_text()
        deadline = time.monotonic() + 5
        while ": keep-alive" not in next(text):
            assert time.monotonic() < deadline
