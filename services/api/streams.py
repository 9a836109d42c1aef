"""Numbered rows as server-sent events: catch up from the database, then follow it, missing none.

Every item carries its row's id as the event's `id:`, so a client that lost its connection sends the last one it saw as
`Last-Event-ID` and goes on from there. The stream ends with an event named `end` once the run is finished and everything
it said has been sent.
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
# Proxies must neither cache nor hold back what is sent; X-Accel-Buffering is nginx's name for the latter.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

BIGINT = 2**63 - 1
LastEventId = Annotated[
    int,
    Header(alias="Last-Event-ID", ge=0, le=BIGINT, description="resume after this id; an EventSource sends it by itself"),
]


class Numbered(Protocol):
    id: int

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What one look at the database found. `finished` was true before the look, so nothing can come after it."""

    items: Sequence[Numbered]
    finished: bool


def wants_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


def answer(request: Request, look: Callable[[int], Batch], after: int) -> Response:
    """A stream of what `look(after)` finds, again and again. `look` runs in a thread and opens its own session."""
    return EventSourceResponse(_stream(request, look, after), headers=HEADERS)


def declaration(page: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI answer of an address that gives a page as JSON or, when asked to, a stream."""
    return {
        "description": "a page, or with `Accept: text/event-stream` a stream of the same items, ended by the event `end`",
        "model": page,
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }


async def _stream(request: Request, look: Callable[[int], Batch], after: int) -> AsyncIterator[bytes]:
    stopping: threading.Event = request.app.state.stopping
    yield format_sse_event(comment="open")  # sends the headers at once
    sent = time.monotonic()
    while not stopping.is_set():
        batch = await run_in_threadpool(look, after)
        for item in batch.items:
            after = item.id
            yield format_sse_event(data_str=item.model_dump_json(), id=str(after))
        if batch.items:
            sent = time.monotonic()
            continue
        if batch.finished:
            yield format_sse_event(data_str="{}", event="end", id=str(after))
            return
        if time.monotonic() - sent > KEEP_ALIVE_S:
            yield format_sse_event(comment="keep-alive")
            sent = time.monotonic()
        await asyncio.sleep(POLL_S)
