"""The one thread that runs the models. Requests of one model decode together, step by step.

The event loop never runs a model: it submits requests, and the outputs of each step reach it through
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from nanochat.engine import Engine, Output, Request, Sampling

log = logging.getLogger(__name__)


class QueueFull(Exception):
    """The queue is full; the request was not accepted."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to generate, and with which model."""

    engine: Engine
    prompt: Sequence[int]
    sampling: Sampling
    max_tokens: int
    n: int = 1
    key: str = ""  # orders of one key share one turn in the engine's queue


class EngineRequest:
    """One request in the engine. Read its `outputs` on the event loop; `cancel` it from any thread."""

    def __init__(self, order: Order, loop: asyncio.AbstractEventLoop):
        self.order, self._loop = order, loop
        self._items: asyncio.Queue[list[Output] | BaseException | None] = asyncio.Queue()
        self.request: Request | None = None  # known once the engine has it
        self.cancelled = threading.Event()
        self.submitted_at = time.monotonic()

    def cancel(self) -> None:
        self.cancelled.set()

    async def outputs(self) -> AsyncGenerator[list[Output]]:
        """The outputs of each step that concerns this request. Raises whatever the engine raised."""
        while (item := await self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def put(self, item: list[Output] | BaseException | None) -> None:
        """Hand an item to the event loop; None ends the iteration."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


class EngineThread:
    """At most `max_running` requests are in the engines. At most `max_waiting` more wait in a queue, first in, first out."""

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

    def submit(self, order: Order) -> EngineRequest:
        """Queue a request. Raises QueueFull."""
        request = EngineRequest(order, asyncio.get_running_loop())
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
            for request in [request for request in self._running if request.cancelled.is_set()]:
                self._end(request)
            for engine in {id(request.order.engine): request.order.engine for request in self._running}.values():
                self._step(engine)
        for request in [*self._running, *self._waiting]:
            request.put(None)

    def _admit(self) -> bool:
        """Start waiting requests while there is room. Sleeps while there are no requests. Returns False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._running or self._waiting)
            # A request that is cancelled in the queue frees its place at once.
            for request in [request for request in self._waiting if request.cancelled.is_set()]:
                self._waiting.remove(request)
                request.put(None)
            while self._waiting and len(self._running) < self._max_running:
                self._start(self._waiting.popleft())
            return not self._closed

    def _start(self, request: EngineRequest) -> None:
        order = request.order
        try:
            request.request = order.engine.add(
                order.prompt, order.sampling, max_tokens=order.max_tokens, n=order.n, key=order.key
            )
        except Exception as err:
            log.exception("the engine refused a request")
            request.put(err)
        else:
            self._running.append(request)

    def _step(self, engine: Engine) -> None:
        """One step of one engine. If it fails, all of the engine's requests do: they were computed together."""
        served = {request.request: request for request in self._running if request.order.engine is engine}
        try:
            outputs = engine.step()
        except Exception as err:
            log.exception("a step of the engine failed")
            for request in served.values():
                request.put(err)
                self._end(request)
            return
        told: dict[Request, list[Output]] = {}
        for output in outputs:
            told.setdefault(output.row.request, []).append(output)
        for asked, news in told.items():
            served[asked].put(news)
            if asked.finished:
                self._end(served[asked])

    def _end(self, request: EngineRequest) -> None:
        """Release the request's part of the KV cache and end its iteration."""
        self._running.remove(request)
        if request.request is not None:
            request.order.engine.cancel(request.request)  # without effect on one that has finished
        request.put(None)
