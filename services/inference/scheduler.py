"""Requests that decode together: one thread takes one engine step of each in turn, so none waits for another to finish.

The event loop never runs the model: columns travel to it through `loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator

log = logging.getLogger(__name__)

Column = tuple[list[int], list[int]]  # one engine step: a token and a mask for each row


class QueueFull(Exception):
    """As many requests wait as are allowed to."""


class Job:
    """One request's generation. Iterate it on the event loop; `cancel` it from any thread."""

    def __init__(self, start: Callable[[], Iterator[Column]], loop: asyncio.AbstractEventLoop):
        self._start, self._loop = start, loop
        self._items: asyncio.Queue[Column | BaseException | None] = asyncio.Queue()
        self._steps: Iterator[Column] | None = None
        self.cancelled = threading.Event()
        self.submitted_at = time.monotonic()

    def cancel(self) -> None:
        self.cancelled.set()

    async def columns(self) -> AsyncGenerator[Column]:
        """Each step's column as it is made. Raises what the engine raised."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def step(self) -> bool:
        """One engine step, on the scheduler's thread. False when there are no more."""
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
        """Let go of the engine's state (the KV cache) and end the iteration."""
        close = getattr(self._steps, "close", None)
        self._steps = None
        try:
            if close is not None:
                close()
        except Exception:
            log.exception("a generation did not end in good order")
        self._put(None)

    def _put(self, item: Column | BaseException | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class Scheduler:
    """Round robin over at most `max_running` jobs; at most `max_waiting` more queue in order of arrival."""

    def __init__(self, *, max_running: int, max_waiting: int):
        self._max_running, self._max_waiting = max_running, max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
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

    def submit(self, start: Callable[[], Iterator[Column]]) -> Job:
        """Queue a generation; `start` makes its iterator, on the engine's thread. Raises QueueFull."""
        job = Job(start, asyncio.get_running_loop())
        with self._changed:
            if len(self._running) + len(self._waiting) >= self._max_running + self._max_waiting:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """End every job and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._admit():
            for job in self._running[:]:
                if not job.step():
                    self._running.remove(job)
                    job.finish()
        for job in [*self._running, *self._waiting]:
            job.finish()

    def _admit(self) -> bool:
        """Fill free places from the queue; sleep while there is nothing to do. False when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._running or self._waiting)
            while self._waiting and len(self._running) < self._max_running:
                self._running.append(self._waiting.popleft())
            self._drop_cancelled()
            return not self._closed

    def _drop_cancelled(self) -> None:
        # Those who hang up while they queue give their place back at once.
        for job in [job for job in self._waiting if job.cancelled.is_set()]:
            self._waiting.remove(job)
            job.finish()
