"""Sends rows of the database as server-sent events: first those already there, then new ones, each exactly once.

The `id:` of an event is the id of its row. A client that lost its connection sends the last id it saw as `Last-Event-ID` and
gets the rows after it. Once the run is finished and all its rows are sent, the stream ends with an event named `end`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.3
KEEP_ALIVE_S = 15.0
# Proxies must neither cache nor buffer the stream. X-Accel-Buffering is nginx's header for buffering.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

BIGINT = 2**63 - 1
LastEventId = Annotated[
    int,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=BIGINT,
        description="resume after this id; a browser's EventSource sends it automatically",
    ),
]


class Numbered(Protocol):
    id: int

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of one query. `finished` was read before the rows: if it is true, no row can come after these."""

    items: Sequence[Numbered]
    finished: bool


def wants_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


def answer(request: Request, query: Callable[[int], Rows], after: int) -> Response:
    """A stream of the rows after the id `after`. `query(after)` runs in a thread, repeatedly, and opens its own session."""
    return EventSourceResponse(_stream(request, query, after), headers=HEADERS)


def declaration(page: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI response of an endpoint that returns a page as JSON or, if the client asks for it, a stream."""
    return {
        "description": "a page; with `Accept: text/event-stream`, a stream of the same items that ends with the event `end`",
        "model": page,
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }


async def _stream(request: Request, query: Callable[[int], Rows], after: int) -> AsyncIterator[bytes]:
    stopping: threading.Event = request.app.state.stopping
    yield format_sse_event(comment="open")  # sends the headers at once
    sent = time.monotonic()
    while not stopping.is_set():
        rows = await run_in_threadpool(query, after)
        for item in rows.items:
            after = item.id
            yield format_sse_event(data_str=item.model_dump_json(), id=str(after))
        if rows.items:
            sent = time.monotonic()
            continue
        if rows.finished:
            yield format_sse_event(data_str="{}", event="end", id=str(after))
            return
        if time.monotonic() - sent > KEEP_ALIVE_S:
            yield format_sse_event(comment="keep-alive")
            sent = time.monotonic()
        await asyncio.sleep(POLL_S)
