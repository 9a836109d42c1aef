"""Which requests are sent again, how often, and what is told when no try succeeds. Against a real server on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from client.errors import ApiError, Unreachable
from client.transport import Transport

DROP = 0  # in place of a status: close the connection without an answer


class Scripted(ThreadingHTTPServer):
    """Answers the requests it gets with these statuses in turn, the last one for ever."""

    def __init__(self, *statuses: int):
        super().__init__(("127.0.0.1", 0), Answer)
        self.statuses, self.asked = list(statuses), 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        status = self.server.statuses[min(self.server.asked, len(self.server.statuses) - 1)]
        self.server.asked += 1
        if status == DROP:
            self.close_connection = True
            return
        body = f'{{"title": "answer {self.server.asked}"}}'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Scripted]:
    with Scripted(*request.param) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def transport(server: Scripted) -> Iterator[Transport]:
    transport = Transport(server.url)
    yield transport
    transport.close()


@pytest.mark.parametrize("server", [(502, 503, 504, 200), (DROP, DROP, 200)], indirect=True)
def test_a_repeatable_request_is_sent_again_until_it_is_answered(server: Scripted, transport: Transport) -> None:
    assert transport.get("/")["title"] == f"answer {len(server.statuses)}"


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
    with pytest.raises(ApiError, match=rf"answer 1 \({server.statuses[0]}\)"):
        transport.get("/")
    assert server.asked == 1
