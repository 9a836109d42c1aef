"""Many readers of live streams: they share one poll of the database, and one that is slow costs no memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from httpx_sse import ServerSentEvent
from sqlalchemy import Engine, event

from client import sse
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.waiting import until

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
def run_id(api: Api) -> str:
    return submitted(api)


def submitted(api: Api) -> str:
    return str(api.http.post("/v1/runs", json={"recipe": "tiny"}).json()["id"])


@pytest.fixture
def worker(api: Api) -> ManualWorker:
    return ManualWorker(api.ledger)


@contextlib.contextmanager
def statements(api: Api) -> Iterator[list[str]]:
    """What the API asks the database about events and lines, while the block runs."""
    engine = api.app.state.ledger.kw["bind"]
    assert isinstance(engine, Engine)
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "FROM event" in statement or "FROM log_line" in statement or "FROM unnest" in statement:
            found.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", note)


def readers(stack: ExitStack, api: Api, run_id: str, number: int) -> list[Iterator[ServerSentEvent]]:
    path, params = f"/v1/runs/{run_id}/events", {"kinds": "log"}
    return [sse.events(stack.enter_context(api.http.stream("GET", path, headers=STREAM, params=params))) for _ in range(number)]


def test_twenty_readers_cost_the_database_about_as_much_as_one(api: Api, worker: ManualWorker) -> None:
    cost = {}
    for number in (1, 20):
        run_id = submitted(api)
        claim = worker.claim(run_id, "data")
        with ExitStack() as stack:
            streams = readers(stack, api, run_id, number)
            worker.report(claim, "log", level="info", message="all are here")
            assert len({next(stream).data for stream in streams}) == 1
            with statements(api) as asked:
                for n in range(5):
                    worker.report(claim, "log", level="info", message=f"{n}")
                    got = {next(stream).data for stream in streams}
                    assert len(got) == 1
                    assert f'"message":"{n}"' in got.pop()
            cost[number] = len(asked)
        until(lambda: not api.app.state.feed.topics, "the readers to be gone")
    assert cost[1] > 0
    assert cost[20] < 20, "each reader asks for itself"


def test_a_reader_that_falls_behind_what_is_kept_in_memory_misses_nothing(
    api: Api, worker: ManualWorker, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.feed.RECENT", 50)
    claim = worker.claim(run_id, "data")
    with api.http.stream("GET", f"/v1/runs/{run_id}/logs", headers=STREAM) as response:
        stream = sse.events(response)
        worker.log(claim, 0, "0")
        assert '"no":0,' in next(stream).data
        for first in range(1, 2401, 600):  # each more than a poll reads at a time
            worker.log(claim, first, *map(str, range(first, first + 600)))
        got = [next(stream) for _ in range(2400)]
    assert [f'"no":{n},' in message.data for n, message in enumerate(got, start=1)] == [True] * 2400


def test_a_reader_that_takes_nothing_is_dropped(
    api: Api, worker: ManualWorker, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.api.streams.SEND_S", 0.3)
    claim = worker.claim(run_id, "data")
    for first in range(0, 8000, 2000):
        worker.log(claim, first, *(["x" * 3900] * 2000))  # 31 MB, more than the kernel's buffers hold
    with api.http.stream("GET", f"/v1/runs/{run_id}/logs", headers=STREAM):
        topics = api.app.state.feed.topics
        until(lambda: topics, "the reader")
        until(lambda: not topics, "the reader to be dropped")


def test_streams_follow_runs_of_their_own_and_filter_for_themselves(api: Api, worker: ManualWorker) -> None:
    runs = [submitted(api) for _ in range(3)]
    claims = [worker.claim(run, "data") for run in runs]
    with ExitStack() as stack:
        streams = [readers(stack, api, run, 1)[0] for run in runs]
        for n, claim in enumerate(claims):
            worker.report(claim, "metric", step=1, values={"loss": 1.0})
            worker.report(claim, "log", level="info", message=f"of run {n}")
        for n, stream in enumerate(streams):
            first = next(stream)
            assert f'"message":"of run {n}"' in first.data
