"""Decodes several requests concurrently: one thread runs one engine step of each request in turn.

No request waits for another one to finish. The model never runs on the event loop; tokens reach the loop through
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator

log = logging.getLogger(__name__)

Column = tuple[list[int], list[int]]  # one engine step: a token and a mask value for each answer


class QueueFull(Exception):
    """The queue has reached its maximum length."""


class EngineRequest:
    """One request to the engine. Iterate `columns` on the event loop. `cancel` may be called from any thread."""

    def __init__(self, start: Callable[[], Iterator[Column]], loop: asyncio.AbstractEventLoop):
        self._start, self._loop = start, loop
        self._items: asyncio.Queue[Column | BaseException | None] = asyncio.Queue()
        self._steps: Iterator[Column] | None = None
        self.cancelled = threading.Event()
        self.submitted_at = time.monotonic()

    def cancel(self) -> None:
        self.cancelled.set()

    async def columns(self) -> AsyncGenerator[Column]:
        """The column of each step, while they are generated. Raises the engine's exception if it fails."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def step(self) -> bool:
        """Run one engine step, on the scheduler's thread. Returns False after the last one."""
        if self.cancelled.is_set():
            return False
        try:
            if self._steps is None:
                self._steps = self._start()
            self._put(next(self._steps))
        except StopIteration:
            return False
        except Exception as err:
            log.exception("generation failed")
            self._put(err)
            return False
        return True

    def finish(self) -> None:
        """Release the engine's state (the KV cache) and end the iteration."""
        close = getattr(self._steps, "close", None)
        self._steps = None
        try:
            if close is not None:
                close()
        except Exception:
            log.exception("closing a generation failed")
        self._put(None)

    def _put(self, item: Column | BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class Scheduler:
    """Round robin over at most `max_running` requests. At most `max_waiting` more wait in a queue, first in, first out."""

    def __init__(self, *, max_running: int, max_waiting: int):
        self._max_running, self._max_waiting = max_running, max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[EngineRequest] = deque()
        self._running: list[EngineRequest] = []
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, start: Callable[[], Iterator[Column]]) -> EngineRequest:
        """Queue a request. `start` is called on the engine's thread and returns the iterator of columns. Raises QueueFull."""
        request = EngineRequest(start, asyncio.get_running_loop())
        with self._changed:
            if len(self._running) + len(self._waiting) >= self._max_running + self._max_waiting:
                raise QueueFull
            self._waiting.append(request)
            self._changed.notify()
        return request

    def close(self) -> None:
        """End all requests and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._admit():
            for request in self._running[:]:
                if not request.step():
                    self._running.remove(request)
                    request.finish()
        for request in [*self._running, *self._waiting]:
            request.finish()

    def _admit(self) -> bool:
        """Start waiting requests while there is room. Sleeps while there are no requests. Returns False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._running or self._waiting)
            while self._waiting and len(self._running) < self._max_running:
                self._running.append(self._waiting.popleft())
            self._drop_cancelled()
            return not self._closed

    def _drop_cancelled(self) -> None:
        # A request that is cancelled in the queue frees its place at once.
        for request in [request for request in self._waiting if request.cancelled.is_set()]:
            self._waiting.remove(request)
            request.finish()
