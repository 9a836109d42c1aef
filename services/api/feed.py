"""One poll of the database for all open streams of this process, however many readers they have.

A topic is a run's events or its log lines, while anybody reads them. The poll asks for the new rows of all topics in a few queries, and
keeps the newest of each topic as the bytes that are sent. A reader that is behind those, because it has just come or is slow, reads
pages from the database itself until it has caught up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from fastapi.sse import format_sse_event
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from controlplane import feeds
from controlplane.db import SessionFactory
from controlplane.models import Event, LogLine, Run
from controlplane.schemas import EventGap, EventPage, EventView, LogGap, LogPage, LogView

log = logging.getLogger(__name__)

POLL_S = 0.3
BATCH = 500  # rows of a topic that one poll reads, and of a page that a reader reads
RECENT = 2000  # rows that a topic keeps; a line has at most 4,000 characters

Table = type[Event] | type[LogLine]
Page = EventPage | LogPage
Item = EventView | LogView
Gap = EventGap | LogGap


@dataclass(frozen=True, slots=True)
class Sent:
    """An item, or a gap before the item of that id, as it is sent to every reader."""

    id: int
    what: Item | Gap
    data: bytes


def encoded(page: Page) -> list[Sent]:
    """The page as it is sent: its gaps, each as an event `gap` without an id, then its items."""
    first = page.items[0].id if page.items else page.next_after
    gaps = [Sent(first, gap, format_sse_event(data_str=gap.model_dump_json(), event="gap")) for gap in page.gaps]
    return gaps + [Sent(x.id, x, format_sse_event(data_str=x.model_dump_json(), id=str(x.id))) for x in page.items]


class Topic:
    """All rows up to the id `seen` have been read; those after the id `floor` are in `recent`. `finished`: no more will come."""

    def __init__(self) -> None:
        self.seen = self.floor = -1
        self.begun = self.finished = False
        self.recent: deque[Sent] = deque()
        self.readers = 0
        self.changed = asyncio.Event()

    def begin(self, newest: int) -> None:
        if not self.begun:
            self.seen = self.floor = newest
            self.begun = True

    def after(self, last: int) -> list[Sent]:
        """The rows after the id `last`, which must not be below `floor`."""
        found = list(takewhile(lambda sent: sent.id > last, reversed(self.recent)))
        found.reverse()
        return found

    def take(self, page: Page, *, finished: bool) -> None:
        rows = encoded(page) if page.items else []
        self.recent.extend(rows)
        if rows:
            self.seen = rows[-1].id
        while len(self.recent) > RECENT:
            self.floor = self.recent.popleft().id
        if rows or finished != self.finished:
            self.finished = finished
            self.tell()

    def tell(self) -> None:
        """Wake all readers."""
        self.changed.set()
        self.changed = asyncio.Event()


class Feed:
    """The topics of this process. `run` is its poll."""

    def __init__(self, ledger: SessionFactory, stopping: threading.Event):
        self._ledger, self._stopping = ledger, stopping
        self._topics: dict[tuple[Table, str], Topic] = {}
        self._wake = asyncio.Event()
        self._failing = False

    @asynccontextmanager
    async def follow(self, table: Table, run_id: str) -> AsyncIterator[Topic]:
        """The topic, which is polled as long as somebody follows it."""
        topic = self._topics.setdefault((table, run_id), Topic())
        topic.readers += 1
        try:
            if not topic.begun:
                topic.begin(await asyncio.to_thread(self._newest, table, run_id))
            self._wake.set()
            yield topic
        finally:
            topic.readers -= 1
            if not topic.readers:
                self._topics.pop((table, run_id), None)

    async def run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                more = await self._poll()
                self._failing = False
            except SQLAlchemyError as err:  # readers wait, and are kept alive
                log.log(logging.DEBUG if self._failing else logging.WARNING, "streams wait for the database: %s", err)
                self._failing = True
            except Exception:
                log.exception("the poll for streams failed and continues")
            if not more:
                self._wake.clear()
                await wait(self._wake, POLL_S)
        for topic in self._topics.values():
            topic.tell()

    async def _poll(self) -> bool:
        """Read what is new in every topic. Returns whether there is more."""
        topics = {key: topic for key, topic in self._topics.items() if topic.begun}
        if not topics:
            return False
        found = await asyncio.to_thread(self._read, {key: topic.seen for key, topic in topics.items()})
        more = False
        for key, (page, finished) in found.items():
            full = len(page.items) >= BATCH
            topics[key].take(page, finished=finished and not full)
            more |= full
        return more

    def _read(self, seen: Mapping[tuple[Table, str], int]) -> dict[tuple[Table, str], tuple[Page, bool]]:
        with self._ledger() as session:
            # The statuses before the rows: the last rows are stored before the final status, so then none is missed.
            runs = {run_id for _, run_id in seen}
            unfinished = {i for i, status in session.execute(_statuses(runs)) if not status.is_finished}
            pages: dict[tuple[Table, str], Page] = {}
            for table, read in _READERS.items():
                if after := {run_id: last for (of, run_id), last in seen.items() if of is table}:
                    pages |= {(table, run_id): page for run_id, page in read(session, after, BATCH).items()}
            return {key: (page, key[1] not in unfinished) for key, page in pages.items()}

    def _newest(self, table: Table, run_id: str) -> int:
        with self._ledger() as session:
            return feeds.newest_id(session, table, run_id)


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, at most so long. Returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _statuses(runs: set[str]) -> Any:
    return select(Run.id, Run.status).where(Run.id.in_(runs))


_READERS: dict[Table, Callable[[Session, Mapping[str, int], int], Mapping[str, Page]]] = {
    Event: feeds.new_events,
    LogLine: feeds.new_logs,
}
