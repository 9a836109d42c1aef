"""The live list of runs: a stream of every run of a project that changes, as the list shows it.

One poll a second asks the database for the projects that anybody follows, however many readers there are. Of a run only its newest
state is kept, so a slow reader skips states instead of falling behind.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Mapping
from itertools import takewhile
from typing import NamedTuple

from fastapi import Request, Response
from fastapi.sse import format_sse_event

from controlplane import run_changes
from controlplane.list_schemas import RunSummary
from services.api import polls, streams

POLL_S = 1.0  # so the figures of a run come once a second at most
STREAM_OF = (
    "what changes in all runs of the project, whatever the parameters say. `ready` comes first; then `run` with a whole item of the "
    "page for each run that has changed, at most once a second, and `gone` with the `id` of a deleted one. Get the page after "
    "`ready`, and again after a `ready` that says `resumed: false`"
)

Changes = Mapping[str, bytes]  # the event of each run, without its id


class State(NamedTuple):
    """What was sent of a run last, as the `version`-th change of its project."""

    version: int
    data: bytes


class Project(polls.Topic):
    """The newest state of each run that has changed since somebody follows the project, the newest change last."""

    def __init__(self) -> None:
        super().__init__()
        self.version = 0
        self.states: dict[str, State] = {}

    def take(self, changes: Changes, position: int) -> None:
        self.position = position
        before = self.version
        for run_id, data in changes.items():
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


class RunFeed(polls.Poll[str, Project]):
    """The projects whose list of runs is followed, as topics."""

    name = "the live list"

    async def since(self, project: str, position: int) -> tuple[bool, list[bytes]]:
        """What changed since a position, or False if the database never was there."""
        now, changes = await asyncio.to_thread(self._read, {project: position})
        return (True, [*changes[project].values()]) if position <= now else (False, [])

    def _make(self) -> Project:
        return Project()

    def _now(self, key: str) -> int:
        with self._ledger() as session:
            return run_changes.position(session)

    async def _poll(self, begun: dict[str, Project]) -> bool:
        now, found = await asyncio.to_thread(self._read, {name: project.position for name, project in begun.items()})
        for name, project in begun.items():
            project.take(found[name], now)
        return False

    async def _pause(self) -> None:
        await asyncio.to_thread(self._stopping.wait, POLL_S)

    def _read(self, after: Mapping[str, int]) -> tuple[int, dict[str, Changes]]:
        """The position first: what is committed while the rows are read comes again with the next poll."""
        with self._ledger() as session:
            now, changed = run_changes.position(session), run_changes.changed(session, after)
        return now, {name: {run_id: _event(run_id, run) for run_id, run in runs.items()} for name, runs in changed.items()}


def _event(run_id: str, run: RunSummary | None) -> bytes:
    if run is None:
        return format_sse_event(data_str=json.dumps({"id": run_id}), event="gone")
    return format_sse_event(data_str=run.model_dump_json(), event="run")


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
            elif not await polls.wait(changed, sent_at + streams.KEEP_ALIVE_S - time.monotonic()):
                yield format_sse_event(comment="keep-alive")
                sent_at = time.monotonic()


def _numbered(rows: list[bytes], position: int) -> bytes:
    """The last event carries the id: a reader that did not get that far has not got everything before it."""
    return b"".join([*rows[:-1], b"id: %d\n" % position, rows[-1]])
