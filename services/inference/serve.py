"""uvicorn with what it lacks: a drain that answers new requests with 503, and bounds on the time and size of a request's headers."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import time
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.inference.errors import ApiError
from services.inference.outbox import GatheringTransport, Outbox
from services.inference.settings import Settings

log = logging.getLogger(__name__)

LAST_WORDS_S = 2  # for the answers that tell of the end
HEAD_BYTES = 64 << 10  # of the headers of a request; what came in the first read may exceed it
# The line with which a client proposes to go on in another protocol.
PROPOSAL = re.compile(rb"(\A[A-Z]+ [^\r\n]+ HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*?)Upgrade:[^\r\n]*\r\n", re.IGNORECASE)


def _refusal(status: HTTPStatus, message: str, code: str) -> bytes:
    """A whole response, for a request that never reaches the application."""
    body = json.dumps(ApiError(status, message, code=code).body()).encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


TOO_SLOW = _refusal(HTTPStatus.REQUEST_TIMEOUT, "The headers of the request took too long.", "request_timeout")
TOO_LARGE = _refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The headers of the request exceed {HEAD_BYTES} bytes.", "headers_too_large"
)
NO_HTTP = _refusal(HTTPStatus.BAD_REQUEST, "This is not a valid HTTP/1.1 request.", "invalid_http")


class Protocol(HttpToolsProtocol):
    """Closes a connection on which a request has begun, or should have, and whose headers do not end within `headers_s`.

    Headers without an end are refused too: httptools keeps all of them. A client that reads nothing of its answer for `reading_s` is
    cut off, because the rest of the answer would wait for it in memory. What is written in one turn of the event loop is sent together.
    """

    headers_s: float
    reading_s: float
    outbox: Outbox
    _unread: asyncio.TimerHandle | None = None
    _deadline: asyncio.TimerHandle | None = None
    _head: int | None = None  # bytes of the headers that are being received, after the read with which they began

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, GatheringTransport(transport, self.outbox)))
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self._end(TOO_LARGE)
                return
        # httptools drops the body of a request that proposes another protocol. Java's HttpClient proposes h2c with every one.
        data = PROPOSAL.sub(rb"\1", data, count=1)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self._expect_headers()
        else:
            self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        self._read_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self.reading_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._read_on()

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        self._end(NO_HTTP)

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.headers_s, self._end, TOO_SLOW)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_on(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _end(self, words: bytes) -> None:
        """Close the connection, with an answer unless it would get into another one."""
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(words)
            self.transport.close()


class Server(uvicorn.Server):
    """At the first signal it calls `drain`; running requests then have `drain_s`, and after that `abort` ends them.

    A second signal ends the service at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None], abort: Callable[[], None], drain_s: float):
        super().__init__(config)
        self._drain, self._abort, self._drain_s = drain, abort, drain_s
        self._drain_until: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain_until is not None or not self.started:
            super().handle_exit(sig, frame)
            return
        log.info("%s: running requests have %g s to finish", signal.Signals(sig).name, self._drain_s)
        self._drain_until = time.monotonic() + self._drain_s
        self._drain()

    async def on_tick(self, counter: int) -> bool:
        if self._drain_until is not None:
            late = time.monotonic() > self._drain_until
            if late:
                self._abort()
            self.should_exit = self.should_exit or late or not self.server_state.tasks
        return await super().on_tick(counter)


def config(app: Any, settings: Settings, **changes: Any) -> uvicorn.Config:
    """How every instance of this service is served. `changes` are options of uvicorn."""

    class Timed(Protocol):
        headers_s = settings.headers_timeout_s
        reading_s = settings.reading_timeout_s
        outbox = Outbox()

    return uvicorn.Config(
        app,
        http=Timed,
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=LAST_WORDS_S,
        **changes,
    )
