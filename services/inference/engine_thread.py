"""The one thread that runs the models. Requests of one model decode together, step by step.

The event loop never runs a model: it submits requests, and the outputs of each step reach it through
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable

from nanochat.engine import Engine, Output, Request
from services.inference.engines.request import EngineError, EngineRequest, Order, QueueFull, RowOutput

log = logging.getLogger(__name__)


class _Job:
    """A request on the engine's thread. What happens to it there is told on the event loop."""

    def __init__(self, engine: Engine, order: Order, loop: asyncio.AbstractEventLoop):
        self.engine, self.order, self._loop = engine, order, loop
        self.asked = EngineRequest(order, lambda _: self.cancelled.set())
        self.request: Request | None = None  # known once the engine has it
        self.cancelled = threading.Event()

    def put(self, outputs: list[Output]) -> None:
        flat = [RowOutput(o.row.index, o.token, o.mask, o.finish, o.logprobs) for o in outputs]
        self._tell(lambda: self.asked.put(flat))

    def end(self, error: Exception | None = None) -> None:
        told = EngineError(str(error)) if error else None
        self._tell(lambda: self.asked.end(told))

    def _tell(self, news: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(news)


class EngineThread:
    """At most `max_running` requests are in the engines. At most `max_waiting` more wait in a queue, first in, first out."""

    def __init__(self, *, max_running: int, max_waiting: int):
        self._max_running, self._max_waiting = max_running, max_waiting
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._running: list[_Job] = []
        self._engines: dict[str, Engine] = {}
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
        job = _Job(self._engines[order.model], order, asyncio.get_running_loop())
        with self._changed:
            if len(self._running) + len(self._waiting) >= self._max_running + self._max_waiting:
                raise QueueFull
            self._waiting.append(job)
            self._changed.notify()
        return job.asked

    def load(self, model: str, engine: Engine) -> None:
        """Serve `model` from now on."""
        self._engines[model] = engine

    def unload(self, model: str) -> None:
        """Forget `model`. The engine stays in memory until its last request ends."""
        self._engines.pop(model, None)

    def close(self) -> None:
        """End all requests and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._admit():
            for job in [job for job in self._running if job.cancelled.is_set()]:
                self._end(job)
            for engine in {id(job.engine): job.engine for job in self._running}.values():
                self._step(engine)
        for job in [*self._running, *self._waiting]:
            job.end()

    def _admit(self) -> bool:
        """Start waiting requests while there is room. Sleeps while there are no requests. Returns False once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._running or self._waiting)
            # A request that is cancelled in the queue frees its place at once.
            for job in [job for job in self._waiting if job.cancelled.is_set()]:
                self._waiting.remove(job)
            while self._waiting and len(self._running) < self._max_running:
                self._start(self._waiting.popleft())
            return not self._closed

    def _start(self, job: _Job) -> None:
        order = job.order
        try:
            job.request = job.engine.add(order.prompt, order.sampling, max_tokens=order.max_tokens, n=order.n, key=order.key)
        except Exception as err:
            log.exception("the engine refused a request")
            job.end(err)
        else:
            self._running.append(job)

    def _step(self, engine: Engine) -> None:
        """One step of one engine. If it fails, all of the engine's requests do: they were computed together."""
        served = {job.request: job for job in self._running if job.engine is engine}
        try:
            outputs = engine.step()
        except Exception as err:
            log.exception("a step of the engine failed")
            for job in served.values():
                self._end(job, err)
            return
        told: dict[Request, list[Output]] = {}
        for output in outputs:
            told.setdefault(output.row.request, []).append(output)
        for request, news in told.items():
            served[request].put(news)
            if request.finished:
                self._end(served[request])

    def _end(self, job: _Job, error: Exception | None = None) -> None:
        """Release the request's part of the KV cache and end its iteration."""
        self._running.remove(job)
        if job.request is not None:
            job.engine.cancel(job.request)  # without effect on one that has finished
        job.end(error)
