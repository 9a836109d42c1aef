"""Middleware that refuses request bodies beyond a limit, with a problem detail like any other refusal.

FastAPI's own limit is not used, because it answers in plain text.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api import problems


class BodyLimit:
    def __init__(self, app: ASGIApp, max_bytes: int):
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._max_bytes:
            refusal = problems.response("body-too-large", self._detail())
            return await refusal(scope, receive, send)
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise HTTPException(413, self._detail())
            return message

        return await self._app(scope, limited, send)

    def _detail(self) -> str:
        return f"a request body may have at most {self._max_bytes} bytes"
