"""One poll of the database for all open streams of this process, however many readers they have.

A topic is a run's events or its log lines, while anybody reads them. The poll asks for the new rows of all topics in a few queries, and
keeps the newest of each topic as the bytes that are sent. A reader that is behind those, because it has just come or is slow, reads
pages from the database itself until it has caught up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from fastapi.sse import format_sse_event
from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane import feeds
from controlplane.models import Event, LogLine, Run
from controlplane.schemas import EventGap, EventPage, EventView, LogGap, LogPage, LogView
from services.api import polls

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


class Rows(polls.Topic):
    """All rows up to the id `position` have been read; those after the id `floor` are in `recent`. `finished`: no more will come."""

    def __init__(self) -> None:
        super().__init__()
        self.floor = -1
        self.finished = False
        self.recent: deque[Sent] = deque()

    def begin(self, position: int) -> None:
        super().begin(position)
        self.floor = position

    def after(self, last: int) -> list[Sent]:
        """The rows after the id `last`, which must not be below `floor`."""
        found = list(takewhile(lambda sent: sent.id > last, reversed(self.recent)))
        found.reverse()
        return found

    def take(self, page: Page, *, finished: bool) -> None:
        rows = encoded(page) if page.items else []
        self.recent.extend(rows)
        if rows:
            self.position = rows[-1].id
        while len(self.recent) > RECENT:
            self.floor = self.recent.popleft().id
        if rows or finished != self.finished:
            self.finished = finished
            self.tell()


class Feed(polls.Poll[tuple[Table, str], Rows]):
    """The events and the log lines of runs, as topics."""

    name = "streams"

    def _make(self) -> Rows:
        return Rows()

    def _now(self, key: tuple[Table, str]) -> int:
        with self._ledger() as session:
            return feeds.newest_id(session, *key)

    async def _poll(self, begun: dict[tuple[Table, str], Rows]) -> bool:
        found = await asyncio.to_thread(self._read, {key: rows.position for key, rows in begun.items()})
        more = False
        for key, (page, finished) in found.items():
            full = len(page.items) >= BATCH
            begun[key].take(page, finished=finished and not full)
            more |= full
        return more

    async def _pause(self) -> None:
        self._wake.clear()
        await polls.wait(self._wake, POLL_S)

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


def _statuses(runs: set[str]) -> Any:
    return select(Run.id, Run.status).where(Run.id.in_(runs))


_READERS: dict[Table, Callable[[Session, Mapping[str, int], int], Mapping[str, Page]]] = {
    Event: feeds.new_events,
    LogLine: feeds.new_logs,
}
