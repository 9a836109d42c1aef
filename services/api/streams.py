"""Sends rows of the database as server-sent events: first those already there, then new ones, each exactly once.

The `id:` of an event is the id of its row. A client that lost its connection sends the last id it saw as `Last-Event-ID` and
gets the rows after it. Rows that are no longer kept are told as an event named `gap`. Once the run is finished and all its rows are sent, the stream ends with an event named `end`.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

from services.api.problems import ProblemError

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.3
KEEP_ALIVE_S = 15.0
# Proxies must neither cache nor buffer the stream. X-Accel-Buffering is nginx's header for buffering.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=r"^[\x20-\x7e]*$",
        description="resume after this id; a browser's EventSource sends it automatically",
    ),
]


class Numbered(Protocol):
    id: int

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Rows:
    """The result of one query. `finished` was read before the rows: if it is true, no row can come after these.

    `gaps` are what the reader will miss because it is no longer kept. Each is sent as an event named `gap`, without an id.
    """

    items: Sequence[Numbered]
    finished: bool
    gaps: Sequence[BaseModel] = ()


def wants_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


def resume_point(last_event_id: str | None, newest: Callable[[], int]) -> int:
    """The id to resume after; 0 without one. Raises ProblemError for an id that the stream cannot have sent."""
    if last_event_id is None:
        return 0
    if re.fullmatch(r"[0-9]{1,18}", last_event_id) and (after := int(last_event_id)) <= newest():
        return after
    wrong = f"{last_event_id[:40]!r} is not an id of this stream; connect again without it to get everything that is kept"
    raise ProblemError("bad-event-id", wrong, [("header Last-Event-ID", wrong)])


def answer(request: Request, query: Callable[[int], Rows], after: int) -> Response:
    """A stream of the rows after the id `after`. `query(after)` runs in a thread, repeatedly, and opens its own session."""
    return EventSourceResponse(_stream(request, query, after), headers=HEADERS)


def declaration(page: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI response of an endpoint that returns a page as JSON or, if the client asks for it, a stream."""
    return {
        "description": "a page; with `Accept: text/event-stream`, a stream of the same items, with an event `gap` for items "
        "that are no longer kept, that ends with the event `end`",
        "model": page,
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }


async def _stream(request: Request, query: Callable[[int], Rows], after: int) -> AsyncIterator[bytes]:
    stopping: threading.Event = request.app.state.stopping
    yield format_sse_event(comment="open")  # sends the headers at once
    sent = time.monotonic()
    while not stopping.is_set():
        rows = await run_in_threadpool(query, after)
        for gap in rows.gaps:
            yield format_sse_event(data_str=gap.model_dump_json(), event="gap")
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
