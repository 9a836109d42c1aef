"""The live list of runs: whole items of the runs that change, once each, without a gap over reconnects and restarts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent
from sqlalchemy import Engine, event

from client import sse
from client.models import RunGone, RunSummary
from services.api.runs import live
from services.standalone.valkey import Valkey
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api, serving
from tests.api.test_bad_input import problem
from tests.waiting import until

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "POLL_S", 0.05)


@pytest.fixture
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


def submitted(http: httpx.Client, **more: Any) -> str:
    return str(http.post("/v1/runs", json={"recipe": "tiny", **more}).json()["id"])


def followed(stack: ExitStack, http: httpx.Client, last: str | None = None) -> Iterator[ServerSentEvent]:
    headers = STREAM if last is None else STREAM | {"Last-Event-ID": last}
    response = stack.enter_context(http.stream("GET", "/v1/runs", headers=headers))
    assert response.status_code == 200, response.read()
    return sse.events(response)


def next_of(stream: Iterator[ServerSentEvent], run_id: str, what: str = "run") -> dict[str, Any]:
    for sent in stream:
        data: dict[str, Any] = json.loads(sent.data)
        if sent.event == what and data["id"] == run_id:
            return data
    raise AssertionError(f"the stream ended before {what} of {run_id}")


def in_list(api: Api, run_id: str) -> dict[str, Any]:
    (item,) = api.http.get("/v1/runs", params={"search": run_id}).json()["items"]
    return dict(item)


def test_a_run_that_changes_is_sent_whole_as_the_list_shows_it(api: Api, worker: ManualWorker) -> None:
    with ExitStack() as stack:
        stream = followed(stack, api.http)
        ready = next(stream)
        assert (ready.event, json.loads(ready.data)) == ("ready", {"resumed": False})
        run_id = submitted(api.http, name="<b>new</b>", max_hours=3)
        first = next_of(stream, run_id)
        assert (first["name"], first["budget"]["max_hours"], first["fraction"]) == ("<b>new</b>", 3.0, 0.0)
        claim = worker.claim(run_id, "data")
        while (seen := next_of(stream, run_id))["status"] != "RUNNING":
            pass
        worker.report(claim, "progress", done=1, total=4, unit="shard", eta_s=3.0)
        while (seen := next_of(stream, run_id))["current"]["progress"] is None:
            pass
        assert seen["current"]["progress"]["fraction"] == 0.25
        worker.report(claim, "metric", step=1, values={"loss": 2.0})
        while next_of(stream, run_id)["current"]["latest"] != {"loss": 2.0}:
            pass
        api.http.post(f"/v1/runs/{run_id}/cancel")
        worker.finish(claim)
        while (seen := next_of(stream, run_id))["finished_at"] is None:
            pass
        assert seen == in_list(api, run_id)
        api.http.patch(f"/v1/runs/{run_id}", json={"labels": ["done"], "archived": True})
        changed = next_of(stream, run_id)
        assert (changed["labels"], changed["archived_at"] is not None) == (["done"], True)
        assert api.http.delete(f"/v1/runs/{run_id}").status_code == 200
        assert next_of(stream, run_id, "gone") == {"id": run_id}


def test_a_reader_that_comes_back_gets_what_it_missed_also_from_another_process(
    api: Api, module_database_url: str, valkey: Valkey
) -> None:
    old, kept = submitted(api.http), submitted(api.http)
    until(lambda: in_list(api, old)["current"] and in_list(api, kept)["current"], "both to be queued")
    with ExitStack() as stack:
        last = next(followed(stack, api.http)).id
    gone = submitted(api.http)
    api.http.post(f"/v1/runs/{gone}/cancel")
    api.http.delete(f"/v1/runs/{gone}")
    api.http.patch(f"/v1/runs/{old}", json={"name": "renamed"})
    with serving(module_database_url, valkey.url, api.home) as other, ExitStack() as stack:
        stream = followed(stack, other.http, last)
        missed = []
        while (sent := next(stream)).event != "ready":
            missed.append((sent.event, json.loads(sent.data)))
        assert json.loads(sent.data) == {"resumed": True}
        assert int(sent.id) >= int(last)
    assert {data["name"] for kind, data in missed if kind == "run" and data["id"] == old} == {"renamed"}
    assert ("gone", {"id": gone}) in missed
    assert kept not in {data["id"] for _, data in missed}


def test_an_id_of_another_database_starts_anew_and_nonsense_is_refused(api: Api) -> None:
    with ExitStack() as stack:
        ready = next(followed(stack, api.http, "999999999999"))
        assert (ready.event, json.loads(ready.data)) == ("ready", {"resumed": False})
    problem(api.http.get("/v1/runs", headers=STREAM | {"Last-Event-ID": "r_1"}), "bad-event-id")


def test_runs_of_other_projects_are_not_sent(api: Api) -> None:
    made = api.http.post("/v1/keys", json={"name": "theirs", "role": "operator", "project": "theirs"}).json()
    headers = {"Authorization": f"Bearer {made['secret']}"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=20) as theirs, ExitStack() as stack:
        stream = followed(stack, theirs)
        next(stream)
        ours, run_id = submitted(api.http), submitted(theirs)
        assert json.loads(next(stream).data)["id"] == run_id != ours


def test_many_readers_share_one_poll(api: Api, worker: ManualWorker) -> None:
    run_id = submitted(api.http)
    claim = worker.claim(run_id, "data")
    engine = api.app.state.ledger.kw["bind"]
    assert isinstance(engine, Engine)
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "pg_snapshot_xmin" in statement:
            asked.append(statement)

    cost = {}
    for number in (1, 10):
        with ExitStack() as stack:
            readers = [followed(stack, api.http) for _ in range(number)]
            for stream in readers:
                next(stream)
            event.listen(engine, "before_cursor_execute", note)
            begun = time.monotonic()
            for n in range(3):
                worker.report(claim, "metric", step=n, values={"loss": float(number + n)})
                got = {json.dumps(next_of(stream, run_id)["current"]["latest"]) for stream in readers}
                assert got == {json.dumps({"loss": float(number + n)})}, "all readers get the same state, and once"
            cost[number] = len(asked) / (time.monotonic() - begun)
            event.remove(engine, "before_cursor_execute", note)
            asked.clear()
        until(lambda: not api.app.state.run_feed.topics, "the readers to be gone")
    assert 0 < cost[10] < 2 / live.POLL_S, "each reader asks for itself"


def test_the_client_follows_the_list(api: Api) -> None:
    with api.client() as client:
        seen = client.follow_runs()
        assert next(seen) is None
        run = client.submit("tiny")
        found = next(item for item in seen if isinstance(item, RunSummary) and item.id == run.id)
        assert (found.stages_total, found.fraction) == (len(run.stages), 0.0)
        client.cancel(run.id)
        client.delete(run.id)
        assert any(isinstance(item, RunGone) and item.id == run.id for item in seen)
