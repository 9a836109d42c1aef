"""Sends rows of the database as server-sent events: first those already there, then new ones, each exactly once.

The `id:` of an event is the id of its row. A client that lost its connection sends the last id it saw as `Last-Event-ID` and
gets the rows after it. Rows that are no longer kept are told as an event named `gap`. Once the run is finished and all its rows are
sent, the stream ends with an event named `end`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Message, Send

from services.api.feed import BATCH, Feed, Gap, Item, Page, Table, encoded
from services.api.polls import wait
from services.api.problems import ProblemError

log = logging.getLogger(__name__)

MEDIA_TYPE = "text/event-stream"
KEEP_ALIVE_S = 15.0
SEND_S = 60.0
# Proxies must neither cache nor buffer the stream. X-Accel-Buffering is nginx's header for buffering.
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
SAME_ITEMS = "the same items, with an event `gap` for items that are no longer kept, that ends with the event `end`"

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        pattern=r"^[\x20-\x7e]*$",
        description="resume after this id; a browser's EventSource sends it automatically",
    ),
]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader wants: the rows of a run's topic that `accepts` accepts. `page` reads those after an id, in a thread."""

    table: Table
    run_id: str
    page: Callable[[int], Page]
    accepts: Callable[[Item | Gap], bool]


def wants_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


def resume_point(last_event_id: str | None, newest: Callable[[], int]) -> int:
    """The id to resume after; 0 without one. Raises ProblemError for an id that the stream cannot have sent."""
    if last_event_id is None:
        return 0
    after = numbered(last_event_id)
    if after > newest():
        raise _wrong(last_event_id)
    return after


def numbered(last_event_id: str) -> int:
    """The id as a number. Raises ProblemError for one that no stream sends."""
    if not re.fullmatch(r"[0-9]{1,18}", last_event_id):
        raise _wrong(last_event_id)
    return int(last_event_id)


def _wrong(last_event_id: str) -> ProblemError:
    wrong = f"{last_event_id[:40]!r} is not an id of this stream; connect again without it to get everything that is kept"
    return ProblemError("bad-event-id", wrong, [("header Last-Event-ID", wrong)])


def answer(request: Request, reading: Reading, after: int) -> Response:
    """A stream of the rows after the id `after`."""
    return response(_stream(request, reading, after))


def response(body: AsyncIterator[bytes]) -> Response:
    """The answer that sends these bytes as they come."""
    return _Stream(body, headers=HEADERS)


def declaration(page: type[BaseModel], stream_of: str = SAME_ITEMS) -> dict[str, Any]:
    """The OpenAPI response of an endpoint that returns a page as JSON or, if the client asks for it, a stream."""
    return {
        "description": f"a page; with `Accept: text/event-stream`, a stream of {stream_of}",
        "model": page,
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }


class _Stream(EventSourceResponse):
    """Ends when the client has taken nothing for SEND_S: what waits for it would stay in memory."""

    async def stream_response(self, send: Send) -> None:
        async def promptly(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        try:
            await super().stream_response(promptly)
        except TimeoutError:
            log.info("a reader of a stream took nothing for %.0f s and is dropped; it can resume", SEND_S)


async def _stream(request: Request, reading: Reading, after: int) -> AsyncIterator[bytes]:
    """`after` is the id up to which the reader has everything; `last` the id of what it got last."""
    stopping: threading.Event = request.app.state.stopping
    feed: Feed = request.app.state.feed
    yield format_sse_event(comment="open")  # sends the headers at once
    sent_at, last = time.monotonic(), after
    async with feed.follow((reading.table, reading.run_id)) as topic:
        while not stopping.is_set():
            changed = topic.changed
            if after < topic.floor:
                seen = topic.position  # committed before the page is read, so the page has it
                rows = encoded(page := await run_in_threadpool(reading.page, after))
                after = page.next_after if len(page.items) >= BATCH else max(page.next_after, seen)
            else:
                rows = [row for row in topic.after(after) if reading.accepts(row.what)]
                after = max(after, topic.position)
            if rows:
                last, sent_at = rows[-1].id, time.monotonic()
                yield b"".join(row.data for row in rows)
            elif topic.finished and after >= topic.position:
                yield format_sse_event(data_str="{}", event="end", id=str(last))
                return
            elif after >= topic.position and not await wait(changed, sent_at + KEEP_ALIVE_S - time.monotonic()):
                yield format_sse_event(comment="keep-alive")
                sent_at = time.monotonic()
