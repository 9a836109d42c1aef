"""Retries, against a real server on loopback: which requests are repeated, how often, and the error after the last try."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from client import transport as module
from client.errors import ApiError, Unreachable
from client.transport import Transport
from tests.client.scripted import DROP, Scripted, scripted


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    with scripted(*request.param) as server:
        yield server


@pytest.fixture
def transport(server: Scripted) -> Iterator[Transport]:
    transport = Transport(server.url)
    yield transport
    transport.close()


@pytest.mark.parametrize("server", [(502, 503, 504, 200), (DROP, DROP, 200)], indirect=True)
def test_a_repeatable_request_is_sent_again_until_it_is_answered(server: Scripted, transport: Transport) -> None:
    assert transport.get("/")["title"] == f"answer {len(server.answers)}"


@pytest.mark.parametrize("server", [(503,)], indirect=True)
def test_four_tries_and_then_the_problem_of_the_last(server: Scripted, transport: Transport) -> None:
    began = time.monotonic()
    with pytest.raises(ApiError, match=r"answer 4 \(503\)"):
        transport.post("/", repeatable=True)
    assert server.asked == 4
    assert 0.3 <= time.monotonic() - began < 5  # pauses of 0.1 to 0.2, 0.1 to 0.4 and 0.1 to 0.8 s


@pytest.mark.parametrize("server", [(DROP,)], indirect=True)
def test_no_answer_to_any_try_names_the_server(server: Scripted, transport: Transport) -> None:
    with pytest.raises(Unreachable, match=server.url):
        transport.get("/")
    assert server.asked == 4


@pytest.mark.parametrize(("server", "error"), [((503, 200), ApiError), ((DROP, 200), Unreachable)], indirect=["server"])
def test_a_request_that_may_do_harm_twice_is_sent_once(server: Scripted, transport: Transport, error: type[Exception]) -> None:
    with pytest.raises(error):
        transport.post("/")
    assert server.asked == 1


@pytest.mark.parametrize("server", [(400, 200), (404, 200), (429, 200), (500, 200)], indirect=True)
def test_a_refusal_is_not_asked_again(server: Scripted, transport: Transport) -> None:
    with pytest.raises(ApiError, match=rf"answer 1 \({server.answers[0]}\)"):
        transport.get("/")
    assert server.asked == 1


def test_a_server_that_never_answers_is_told_and_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is sent four times would wait four times as long."""
    monkeypatch.setattr(module, "TIMEOUT", httpx.Timeout(0.3))
    monkeypatch.setattr(module, "GIVE_UP_S", 0.2)
    monkeypatch.setattr(module, "NOTICE_S", 0.05)
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0.1)
        transport = Transport(f"http://127.0.0.1:{silent.getsockname()[1]}", waits=told.append)
        with pytest.raises(Unreachable, match="timed out"):
            transport.get("/")
        assert told == [transport.base_url]
        with pytest.raises(httpx.ReadTimeout), transport.stream("GET", "/", read_timeout_s=0.2):
            pass
        assert told == [transport.base_url] * 2
        transport.close()
        silent.accept()[0].close()
        silent.accept()[0].close()
        with pytest.raises(TimeoutError):
            silent.accept()


@pytest.mark.parametrize("server", [(200,)], indirect=True)
def test_a_server_that_answers_at_once_is_not_waited_for(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(module, "NOTICE_S", 5.0)
    transport = Transport(server.url, waits=told.append)
    transport.get("/")
    transport.close()
    assert told == []
