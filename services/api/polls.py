"""What the live streams have in common: one poll of the database for all readers of this process, however many they are."""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from controlplane.db import SessionFactory

log = logging.getLogger(__name__)


class Topic:
    """What readers follow. The poll has read everything up to `position`, which is -1 until a reader has asked where to begin."""

    def __init__(self) -> None:
        self.position = -1
        self.readers = 0
        self.changed = asyncio.Event()

    def begin(self, position: int) -> None:
        self.position = position

    def tell(self) -> None:
        """Wake all readers."""
        self.changed.set()
        self.changed = asyncio.Event()


KeyT = TypeVar("KeyT", bound=Hashable)
TopicT = TypeVar("TopicT", bound=Topic)


class Poll(ABC, Generic[KeyT, TopicT]):
    """The topics that readers of this process follow. `run` is the loop that asks for what is new in them."""

    name: str  # for the log

    def __init__(self, ledger: SessionFactory, stopping: threading.Event):
        self._ledger, self._stopping = ledger, stopping
        self.topics: dict[KeyT, TopicT] = {}
        self._wake = asyncio.Event()  # somebody has begun to follow a topic
        self._failing = False

    @asynccontextmanager
    async def follow(self, key: KeyT) -> AsyncIterator[TopicT]:
        """The topic, which is polled as long as somebody follows it."""
        topic = self.topics.setdefault(key, self._make())
        topic.readers += 1
        try:
            if topic.position < 0:
                now = await asyncio.to_thread(self._now, key)
                if topic.position < 0:  # no other reader has begun in the meantime
                    topic.begin(now)
            self._wake.set()
            yield topic
        finally:
            topic.readers -= 1
            if not topic.readers:
                self.topics.pop(key, None)

    async def run(self) -> None:
        while not self._stopping.is_set():
            more = False
            try:
                if begun := {key: topic for key, topic in self.topics.items() if topic.position >= 0}:
                    more = await self._poll(begun)
                self._failing = False
            except SQLAlchemyError as err:  # readers wait, and are kept alive
                level = logging.DEBUG if self._failing else logging.WARNING
                log.log(level, "the poll for %s waits for the database: %s", self.name, err)
                self._failing = True
            except Exception:
                log.exception("the poll for %s failed and continues", self.name)
            if not more:
                await self._pause()
        for topic in self.topics.values():
            topic.tell()

    @abstractmethod
    def _make(self) -> TopicT: ...

    @abstractmethod
    def _now(self, key: KeyT) -> int:
        """The position from which on the topic is followed. Called in a thread."""

    @abstractmethod
    async def _poll(self, begun: dict[KeyT, TopicT]) -> bool:
        """Take in what is new in these topics. Returns whether there is more."""

    @abstractmethod
    async def _pause(self) -> None:
        """Until the next poll."""


async def wait(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, at most so long. Returns whether it came."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
