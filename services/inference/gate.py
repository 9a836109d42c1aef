"""What a request must pass before its body is parsed: the API key, the size of the body, and the time that it takes to arrive."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference.callers import Callers
from services.inference.errors import ApiError

OPEN = frozenset({"/health", "/ready", "/metrics", "/version", "/stats", "/docs", "/redoc", "/openapi.json"})  # need no key
PROBES = frozenset({"/health", "/ready", "/metrics", "/version"})  # answered while the service drains
SMALL_BYTES = 1 << 16  # parsing a body up to this size takes less than a step of the engine
DISCARD_S = 1.0  # how long a refused body is read on, so that the client gets to see the answer
RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Bounds:
    body_bytes: int
    body_values: int  # JSON values in a body: reading takes up to 3 µs for each, and nothing else runs meanwhile
    body_s: float  # seconds until the whole body has come


class Gate:
    """Pure ASGI: it reads no more of a body than it must. Callers' keys reach the routes as `request.state.caller`, hashed."""

    def __init__(self, app: ASGIApp, *, callers: Callers, bounds: Bounds, draining: Callable[[], bool]):
        self._app, self._callers, self._bounds, self._draining = app, callers, bounds, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            scope.setdefault("state", {})["caller"] = await self._caller(scope, headers)
            if self._draining() and scope["path"] not in PROBES:
                raise ApiError(
                    503, "The service is shutting down. Try again.", code="shutting_down", retry_after_s=RETRY_AFTER_S
                )
            body = await self._body(headers, receive)
        except ApiError as err:
            await _refuse(err, scope, headers, receive, send)
        except ConnectionError:
            pass  # the client is gone, and nobody reads an answer
        else:
            await self._app(scope, _replayed(body, receive), send)

    async def _caller(self, scope: Scope, headers: Headers) -> str:
        """Raises ApiError 401 unless the request has a key that may call."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        given = given if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        given = given.strip()
        if scope["path"] not in OPEN and scope["method"] != "OPTIONS" and not await self._callers.admits(given):
            message = "Missing or unknown API key. Send it as `Authorization: Bearer <key>` or as `X-Api-Key: <key>`."
            raise ApiError(401, message, code="invalid_api_key")
        return hashlib.sha256(given.encode()).hexdigest()[:16] if given else ""

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body. Raises ApiError: 413 too large, 408 too slow, 400 too many values."""
        length = headers.get("content-length")
        if length is None and "transfer-encoding" not in headers:
            return b""
        if length is not None and int(length) > self._bounds.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._bounds.body_s):
                body = await self._read(receive)
        except TimeoutError as err:
            raise ApiError(408, f"The body did not arrive within {self._bounds.body_s:g} s.", code="request_timeout") from err
        if len(body) > SMALL_BYTES and body.count(b",") + body.count(b"[") + body.count(b"{") > self._bounds.body_values:
            raise ApiError(
                400,
                f"The body has more than {self._bounds.body_values} JSON values. Split the request.",
                code="body_too_complex",
            )
        return body

    async def _read(self, receive: Receive) -> bytes:
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._bounds.body_bytes:
                raise self._too_large()
            more = message.get("more_body", False)
        return b"".join(chunks)

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"The body is larger than {self._bounds.body_bytes} bytes, the limit of this server.", code="body_too_large"
        )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body to the application once; after that, what the connection says."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(err: ApiError, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
    """Answer at once and close. A client that is still sending would lose the answer with a reset, so its bytes are dropped."""
    response = err.response()
    await send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": [*response.raw_headers, (b"connection", b"close")],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body, "more_body": True})
    if "expect" not in headers and ("content-length" in headers or "transfer-encoding" in headers):
        try:
            async with asyncio.timeout(DISCARD_S):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        except TimeoutError:
            pass
    await send({"type": "http.response.body", "body": b""})
