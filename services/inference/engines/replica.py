"""One engine process as the HTTP process sees it: started, watched, restarted, and talked to over a socket pair."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from services.inference.engines.launch import Launch, Worker
from services.inference.engines.request import LOST, EngineError, EngineRequest, ModelNotLoaded, RowOutput
from services.inference.engines.router import Prefixes
from services.inference.engines.wire import (
    Cancel,
    Command,
    Frames,
    Gauges,
    Hello,
    Load,
    Loaded,
    NotLoaded,
    Report,
    Setup,
    Step,
    Submit,
    Unload,
    frame,
)

log = logging.getLogger(__name__)

ROW_TOKENS = 64  # work that an answer still means, in tokens of a prompt: for choosing a replica
RELOAD_S = 30.0  # before the next try of a model that a new process could not load
BACKOFF_S = (0.2, 1.0, 5.0, 15.0, 30.0)  # before the next start, by the number of starts in a row that came to nothing


@dataclass(slots=True)
class _Flight:
    """A request in the process."""

    request: EngineRequest
    rows: int  # that have not finished
    begun: bool = False  # outputs have come


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds without a word from the process after which it is taken for stuck and killed."""

    start_s: float
    step_s: float


class Replica:
    """`run` keeps one engine process alive. `lost` takes the requests of a process that died, with whether an output had come."""

    def __init__(
        self,
        number: int,
        launch: Launch,
        setup: Setup,
        patience: Patience,
        wanted: dict[str, Load],
        lost: Callable[[EngineRequest, bool], None],
    ):
        self.number, self._launch, self._setup, self._patience = number, launch, setup, patience
        self._wanted, self._lost = wanted, lost
        self.device: int | None = None  # number of its GPU; None: not told yet
        self.models: dict[str, int] = {}  # loaded models and their contexts
        self.gauges = Gauges()
        self.seen = Prefixes()
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()  # of the first process
        self.device_name = ""  # as the process calls it
        self.up = False
        self.starts, self.failures = 0, 0  # processes started; starts in a row that ended before a model was loaded
        self._link: _Link | None = None
        self._flights: dict[int, _Flight] = {}
        self._loads: dict[str, asyncio.Future[int]] = {}
        self._last_id = 0
        self.waiting_tokens = 0  # of the prompts of requests without an output
        self._rows = 0

    @property
    def requests(self) -> int:
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """Requests that the engine has not started."""
        return self.gauges.waiting

    @property
    def work(self) -> int:
        return self.waiting_tokens + ROW_TOKENS * self._rows

    def submit(self, request: EngineRequest) -> None:
        assert self._link is not None  # the fleet asks only replicas that are up
        self._last_id += 1
        request.attempts += 1
        request.replica = self.number
        id, order = self._last_id, request.order
        self._flights[id] = _Flight(request, order.n)
        self.waiting_tokens += len(order.prompt)
        self._rows += order.n
        request.on_cancel = lambda: self._cancel(id)
        self._link.send(Submit(id, order))

    def load(self, command: Load) -> asyncio.Future[int]:
        """The context of a model once it is loaded. Raises ModelNotLoaded."""
        if (pending := self._loads.get(command.model)) is not None:
            return pending
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        if command.model in self.models:
            future.set_result(self.models[command.model])
        else:
            self._loads[command.model] = future
            self._send(command)  # a process that is not up yet gets it after its Hello
        return future

    def unload(self, model: str) -> None:
        self.models.pop(model, None)
        self._answer(model, ModelNotLoaded("the model was unloaded while it was being loaded", "unloaded", ""))
        self._send(Unload(model))

    def abort(self, error: EngineError) -> None:
        """End all requests of this replica."""
        for id in list(self._flights):
            self._send(Cancel(id))
            self._forget(id).end(error)

    async def run(self) -> None:
        """Start the process, and a new one whenever it ends, until cancelled."""
        while True:
            try:
                await self._live()
            except OSError:
                log.exception("engine process %d cannot be started", self.number)
            self.failures += 1  # `_receive` sets it to 0
            pause = BACKOFF_S[min(self.failures, len(BACKOFF_S)) - 1]
            log.error("engine process %d has ended; a new one starts in %.1f s", self.number, pause)
            await asyncio.sleep(pause)

    async def _live(self) -> None:
        """The life of one process."""
        ours, worker = await asyncio.to_thread(self._launch, self.device)
        self.starts += 1
        link = self._link = _Link(self._receive)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
            link.send(self._setup)
            await self._watch(link, worker)
        finally:
            link.close()
            self._fall()
            await asyncio.to_thread(worker.join)

    async def _watch(self, link: _Link, worker: Worker) -> None:
        """Wait for the end of the process. Kill it when it has been silent for too long."""
        loop = asyncio.get_running_loop()
        while not link.closed.is_set():
            patience = self._patience.step_s if self.up else self._patience.start_s
            heard = link.heard_at
            try:
                await asyncio.wait_for(link.closed.wait(), min(1.0, patience / 4))
            except TimeoutError:
                # Heard nothing during this wait either, so this process was not the one that slept.
                if link.heard_at == heard and loop.time() - heard > patience:
                    log.error("engine process %d has been silent for %.1f s and is killed", self.number, loop.time() - heard)
                    worker.kill()
                    return

    def _receive(self, report: Report | Command) -> None:
        match report:
            case Step():
                self._step(report)
            case Hello():
                self.up, self.device_name = True, report.device
                for command in self._wanted.values():
                    self._send(command)
                if not self.hello.done():
                    self.hello.set_result(report)
            case Loaded(model, context):
                self.failures = 0
                if model in self._wanted:
                    self.models[model] = context
                    self._answer(model, context)
            case NotLoaded():
                asked = self._answer(report.model, ModelNotLoaded(report.message, report.code, report.hint))
                if not asked and report.model in self._wanted:  # a process that was restarted
                    log.error("model %s cannot be loaded again: %s. %s", report.model, report.message, report.hint)
                    asyncio.get_running_loop().call_later(RELOAD_S, self._reload, report.model)

    def _reload(self, model: str) -> None:
        if model in self._wanted and model not in self.models:
            self._send(self._wanted[model])

    def _answer(self, model: str, result: int | Exception) -> bool:
        """Tell who waits for a model to be loaded. Returns whether anybody does."""
        future = self._loads.pop(model, None)
        if future is None or future.done():
            return False
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
        return True

    def _step(self, step: Step) -> None:
        self.gauges = step.gauges
        told: dict[int, list[RowOutput]] = {}
        for id, index, token, mask, finish, logprobs in step.rows:
            row = RowOutput(index, token, mask, finish, logprobs)
            if (rows := told.get(id)) is None:
                told[id] = [row]
            else:
                rows.append(row)
        for id, outputs in told.items():
            flight = self._flights.get(id)
            if flight is None:
                continue  # cancelled while the step ran
            if not flight.begun:
                flight.begun = True
                self.waiting_tokens -= len(flight.request.order.prompt)
            flight.request.put(outputs)
            for output in outputs:
                flight.rows -= output.finish is not None
            if flight.rows == 0:
                self._forget(id).end()
        for id, reason in step.failed:
            if id in self._flights:
                self._forget(id).end(EngineError(reason))

    def _cancel(self, id: int) -> None:
        if id in self._flights:
            self._forget(id)
            self._send(Cancel(id))

    def _send(self, command: Command) -> None:
        if self.up and self._link:
            self._link.send(command)

    def _forget(self, id: int) -> EngineRequest:
        flight = self._flights.pop(id)
        self._rows -= flight.request.order.n
        if not flight.begun:
            self.waiting_tokens -= len(flight.request.order.prompt)
        return flight.request

    def _fall(self) -> None:
        """The process is gone: nothing is loaded, and its requests are lost."""
        self._link, self.up, self.gauges, self.seen = None, False, Gauges(), Prefixes()
        self.models.clear()
        for model in list(self._loads):
            self._answer(model, ModelNotLoaded("the engine process died while it loaded the model", LOST, ""))
        for id, begun in [(id, flight.begun) for id, flight in self._flights.items()]:
            self._lost(self._forget(id), begun)


@dataclass(eq=False)
class _Link(asyncio.Protocol):
    """Our end of the socket."""

    receive: Callable[[Report | Command], None]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    heard_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _frames: Frames = field(default_factory=Frames)
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the class

    def data_received(self, data: bytes) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        for message in self._frames.feed(data):
            self.receive(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def send(self, command: Command) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(command))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
