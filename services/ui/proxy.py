"""Forwards requests of a signed-in visitor to the two REST APIs, with the visitor's key. Streams and ranges pass through unchanged."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from services.ui.access.guard import visitor_secret
from services.ui.access.sessions import Sessions
from services.ui.chat.models import NOT_YOURS

log = logging.getLogger(__name__)

SENT = frozenset(
    {"accept", "accept-encoding", "content-type", "content-length", "last-event-id", "range", "if-range", "if-none-match"}
    | {"idempotency-key", "x-request-id"}
)
RETURNED = frozenset(
    {"content-type", "content-length", "content-encoding", "content-disposition", "content-range", "accept-ranges", "etag"}
    | {"last-modified", "cache-control", "retry-after", "location", "x-request-id", "x-accel-buffering", "vary"}
)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
# Reading may pause for as long as a model is loaded; the streams of the control API send something every 15 s.
TIMEOUT = httpx.Timeout(10.0, connect=3.0, read=130.0, pool=None)


class Proxy:
    """`/api/…` is the control API, `/inference/…` the inference service."""

    def __init__(self, api_url: str, inference_url: str, sessions: Sessions):
        self._sessions = sessions
        self._doors = {"api": (api_url, "The control API"), "inference": (inference_url, "The inference service")}
        self._http: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False) as self._http:
            yield

    def router(self) -> APIRouter:
        routes = APIRouter()
        for door in self._doors:
            routes.add_api_route(f"/{door}/{{path:path}}", self.forward, methods=METHODS, include_in_schema=False)
        return routes

    async def forward(self, request: Request) -> Response:
        door = request.scope["path"].split("/")[1]
        base, name = self._doors[door]
        raw = request.scope["raw_path"].decode("ascii").split("?")[0].removeprefix(f"/{door}")
        query = request.scope["query_string"].decode("ascii")
        headers = [(k, v) for k, v in request.headers.items() if k in SENT]
        headers.append(("authorization", f"Bearer {visitor_secret(request)}"))
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        assert self._http is not None
        sent = self._http.build_request(
            request.method,
            base + raw + (f"?{query}" if query else ""),
            headers=headers,
            content=request.stream() if has_body else None,
        )
        try:
            answer = await self._http.send(sent, stream=True)
        except httpx.HTTPError as err:
            log.info("%s did not answer: %r", base, err)
            return JSONResponse({"title": f"{name} does not answer", "status": 502, "detail": f"{name} does not answer."}, 502)
        if answer.status_code == 401 and door == "inference":  # which serves one project: the visitor stays signed in
            await answer.aclose()
            return JSONResponse({"title": "Not for this key", "status": 403, "detail": NOT_YOURS}, 403)
        response = StreamingResponse(
            _body(answer),
            answer.status_code,
            {k: v for k, v in answer.headers.items() if k in RETURNED},
            background=BackgroundTask(answer.aclose),
        )
        if answer.status_code == 401:  # revoked or expired since the sign-in
            self._sessions.sign_out(request, response)
        return response


async def _body(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes as they come. A stream whose server goes away ends early; the browser notices and connects again."""
    try:
        async for part in answer.aiter_raw():
            yield part
    except httpx.HTTPError as err:
        log.info("a forwarded answer ended early: %r", err)
        if "content-length" in answer.headers:
            raise  # so that half a file is not taken for a whole one
    finally:
        await answer.aclose()
