"""HTTP details that all routes share: HEAD, a trailing slash, and the id and the log line of a request."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")  # longer or stranger ids are replaced: they are copied into headers and logs
POLLED = ("/health", "/ready", "/metrics")  # asked every few seconds; not worth a line of the log


class Protocol:
    """ASGI middleware. HEAD is answered as GET without the body, and `/v1/models/` as `/v1/models`.

    Each request has an id: that of its header `X-Request-Id` or a new one. The answer and each line of the log have it too.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("X-Request-Id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        # A copy: the server itself leaves out the body of an answer to HEAD, by the method in its own scope.
        changed = {**scope, "path": scope["path"].rstrip("/") or "/", "method": _method(scope["method"])}
        began, status = time.monotonic(), 0

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with bound_contextvars(request=request_id):
            try:
                await self.app(changed, receive, named)
            finally:
                if changed["path"] not in POLLED:
                    log.info(
                        "%s %r: %s in %.3f s", scope["method"], scope["path"], status or "no answer", time.monotonic() - began
                    )


def _method(method: str) -> str:
    return "GET" if method == "HEAD" else method
