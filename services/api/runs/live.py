"""The live list of runs: a stream of every run of a project that changes, as the list shows it.

One poll a second asks the database for the projects that anybody follows, however many readers there are. Of a run only its newest
state is kept, so a slow reader skips states instead of falling behind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import NamedTuple

from fastapi import Request, Response
from fastapi.sse import format_sse_event
from sqlalchemy.exc import SQLAlchemyError

from controlplane import run_changes
from controlplane.db import SessionFactory
from controlplane.list_schemas import RunSummary
from services.api import streams
from services.api.feed import wait

log = logging.getLogger(__name__)

POLL_S = 1.0  # so the figures of a run come once a second at most

Changes = Mapping[str, RunSummary | None]


class State(NamedTuple):
    """What was sent of a run last, as the `version`-th change of its project."""

    version: int
    data: bytes


class Project:
    """The newest state of each run that has changed since somebody follows the project, the newest change last."""

    def __init__(self) -> None:
        self.position = -1
        self.version = 0
        self.states: dict[str, State] = {}
        self.readers = 0
        self.changed = asyncio.Event()

    def take(self, changes: Changes, position: int) -> None:
        self.position = position
        before = self.version
        for run_id, data in encoded(changes).items():
            if run_id in self.states and self.states[run_id].data == data:
                continue
            self.states.pop(run_id, None)
            self.version += 1
            self.states[run_id] = State(self.version, data)
        if self.version > before:
            self.tell()

    def after(self, version: int) -> list[bytes]:
        newer = [state.data for state in takewhile(lambda s: s.version > version, reversed(self.states.values()))]
        return newer[::-1]

    def tell(self) -> None:
        """Wake all readers."""
        self.changed.set()
        self.changed = asyncio.Event()


class RunFeed:
    """The projects that readers of this process follow. `run` is its poll."""

    def __init__(self, ledger: SessionFactory, stopping: threading.Event):
        self._ledger, self._stopping = ledger, stopping
        self._projects: dict[str, Project] = {}
        self._failing = False

    @asynccontextmanager
    async def follow(self, name: str) -> AsyncIterator[Project]:
        """The project, which is polled as long as somebody follows it."""
        project = self._projects.setdefault(name, Project())
        project.readers += 1
        try:
            if project.position < 0:
                position = await asyncio.to_thread(self._position)
                project.position = max(project.position, position)
            yield project
        finally:
            project.readers -= 1
            if not project.readers:
                self._projects.pop(name, None)

    async def since(self, name: str, position: int) -> tuple[bool, list[bytes]]:
        """What changed since a position, or False if the database never was there."""
        now, changes = await asyncio.to_thread(self._read, {name: position})
        return position <= now, list(encoded(changes[name]).values()) if position <= now else []

    async def run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._poll()
                self._failing = False
            except SQLAlchemyError as err:  # readers wait, and are kept alive
                log.log(logging.DEBUG if self._failing else logging.WARNING, "the live list waits for the database: %s", err)
                self._failing = True
            except Exception:
                log.exception("the poll for the live list failed and continues")
            await asyncio.to_thread(self._stopping.wait, POLL_S)
        for project in self._projects.values():
            project.tell()

    async def _poll(self) -> None:
        projects = {name: project for name, project in self._projects.items() if project.position >= 0}
        if not projects:
            return
        now, found = await asyncio.to_thread(self._read, {name: project.position for name, project in projects.items()})
        for name, project in projects.items():
            project.take(found[name], now)

    def _position(self) -> int:
        with self._ledger() as session:
            return run_changes.position(session)

    def _read(self, after: Mapping[str, int]) -> tuple[int, dict[str, dict[str, RunSummary | None]]]:
        """The position first: what is committed while the rows are read comes again with the next poll."""
        with self._ledger() as session:
            return run_changes.position(session), run_changes.changed(session, after)


def encoded(changes: Changes) -> dict[str, bytes]:
    """The events of the changes, without ids, by run."""
    return {
        run_id: format_sse_event(data_str=json.dumps({"id": run_id}), event="gone")
        if summary is None
        else format_sse_event(data_str=summary.model_dump_json(), event="run")
        for run_id, summary in changes.items()
    }


def answer(request: Request, project: str, last_event_id: str | None) -> Response:
    """A stream of the changes in the project, after those that the reader has if it names the last one. Raises ProblemError."""
    position = None if last_event_id is None else streams.numbered(last_event_id)
    return streams.response(_stream(request, project, position))


async def _stream(request: Request, name: str, position: int | None) -> AsyncIterator[bytes]:
    stopping: threading.Event = request.app.state.stopping
    feed: RunFeed = request.app.state.run_feed
    yield format_sse_event(comment="open")  # sends the headers at once
    async with feed.follow(name) as project:
        version, at = project.version, project.position
        resumed, missed = (False, []) if position is None else await feed.since(name, position)
        yield _numbered([*missed, format_sse_event(data_str=json.dumps({"resumed": resumed}), event="ready")], at)
        sent_at = time.monotonic()
        while not stopping.is_set():
            changed = project.changed
            if rows := project.after(version):
                version, sent_at = project.version, time.monotonic()
                yield _numbered(rows, project.position)
            elif not await wait(changed, sent_at + streams.KEEP_ALIVE_S - time.monotonic()):
                yield format_sse_event(comment="keep-alive")
                sent_at = time.monotonic()


def _numbered(rows: list[bytes], position: int) -> bytes:
    """The last event carries the id: a reader that did not get that far has not got everything before it."""
    return b"".join([*rows[:-1], b"id: %d\n" % position, rows[-1]])
