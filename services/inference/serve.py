"""uvicorn with what it lacks: a drain that answers new requests with 503, and a deadline for the headers of a request."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.inference.errors import ApiError
from services.inference.settings import Settings

log = logging.getLogger(__name__)

LAST_WORDS_S = 2  # for the answers that tell of the end
_ERROR = json.dumps(ApiError(408, "The headers of the request took too long.", code="request_timeout").body()).encode()
TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(_ERROR), _ERROR)
)


class Protocol(HttpToolsProtocol):
    """Closes a connection on which a request has begun, or should have, and whose headers do not end within `headers_s`."""

    headers_s: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_headers()
        else:
            self._stop_expecting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self.headers_s, self._too_slow)

    def _stop_expecting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(TOO_SLOW)
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
