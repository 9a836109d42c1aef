"""An engine process: one GPU, one engine for each loaded model. This is the only part of the service that imports torch.

One thread runs the engines, one reads the commands, and one loads models, so that the running answers go on meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from nanochat.contract.contract import StageError
from nanochat.distributed import autodetect
from nanochat.engine import Engine
from nanochat.engine.request import FORCED, Request
from nanochat.grammar import GrammarError
from services import logs
from services.inference.engines.models import load
from services.inference.engines.request import PROMPT, Order
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
    Row,
    Setup,
    Step,
    Submit,
    Unload,
    frame,
)

log = logging.getLogger(__name__)

Loader = Callable[[Load, str, Setup], Engine]

BEAT_S = 1.0  # an idle process reports this often
FAULTS = 3  # so many failed steps without a good one between them end the process


class Broken(Exception):
    """The process cannot go on; a new one must take its place."""


@dataclass(slots=True)
class _Job:
    id: int
    engine: Engine
    request: Request


class EngineLoop:
    """Serves the commands that come over `link` until the other end closes it. Raises Broken when the device is unusable."""

    def __init__(self, link: socket.socket, setup: Setup, load: Loader):
        self._link, self._setup, self._loaded_by = link, setup, load
        self._device = setup.device or autodetect()
        self._inbox: queue.SimpleQueue[Command | Report | _Made | None] = queue.SimpleQueue()
        self._engines: dict[str, Engine] = {}  # those that take orders
        self._live: list[Engine] = []  # these, and those whose last requests are being answered
        self._jobs: dict[int, _Job] = {}
        self._ids: dict[Request, int] = {}
        self._unscored: deque[Submit] = deque()  # orders whose prompts are to be scored before they start
        self._failed: list[tuple[int, str]] = []
        self._rows: list[Row] = []
        self._faults = 0
        self._steps = self._gone_hits = self._gone_queries = self._gone_preemptions = 0
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")

    def run(self) -> None:
        if self._setup.threads:
            os.environ["OMP_NUM_THREADS"] = str(self._setup.threads)  # else the engine takes one for a small model
            torch.set_num_threads(self._setup.threads)
        devices = torch.cuda.device_count() if self._device.startswith("cuda") else 1
        try:
            self._send(Hello(self._device, devices))
            while self._obey():
                self._score()
                for engine in [engine for engine in self._live if engine.busy]:
                    self._step(engine)
                self._retire()
                self._send(Step(self._rows, self._failed, self._gauges()))
                self._rows, self._failed = [], []
        except OSError:  # the HTTP process is gone, and nobody waits for the answers
            log.info("the HTTP process has closed the connection")
        finally:
            self._loader.shutdown(wait=False, cancel_futures=True)

    def put(self, command: Command | Report | None) -> None:
        """Hand over a command from the thread that reads them; None ends the loop."""
        if isinstance(command, Submit):
            self._compile(command.order)
        self._inbox.put(command)

    def _compile(self, order: Order) -> None:
        """Compile the order's grammar on the thread that reads the commands, so that no step waits for it."""
        engine, grammar = self._engines.get(order.model), order.sampling.grammar
        if engine is not None and grammar is not None:
            with contextlib.suppress(GrammarError):  # the engine refuses it too
                engine.grammars.matcher(grammar)

    def _obey(self) -> bool:
        """Carry out all commands that have come. Waits for one, at most BEAT_S, while there is no work. False: the end."""
        wait = not self._unscored and not any(engine.busy for engine in self._live)
        try:
            while True:
                command = self._inbox.get(wait, BEAT_S)
                if command is None:
                    return False
                self._do(command)
                wait = False
        except queue.Empty:
            return True

    def _do(self, command: Command | Report | _Made) -> None:
        match command:
            case Submit(_, order) if order.scores_prompt:
                self._unscored.append(command)
            case Submit():
                self._submit(command)
            case Cancel(id):
                self._unscored = deque(other for other in self._unscored if other.id != id)
                if (job := self._jobs.get(id)) is not None:
                    self._end(job)
            case Load():
                self._loader.submit(self._load, command)
            case _Made(model, engine):
                self._engines[model] = engine
                self._live.append(engine)
                self._send(Loaded(model, engine.context))
            case NotLoaded():
                self._send(command)
            case Unload(model):
                self._engines.pop(model, None)

    def _submit(self, command: Submit) -> None:
        order = command.order
        engine = self._engines.get(order.model)
        if engine is None:
            self._failed.append((command.id, f"the model {order.model!r} is not loaded"))
            return
        try:
            request = engine.add(order.prompt, order.sampling, max_tokens=order.max_tokens, n=order.n, key=order.key)
        except Exception as err:
            log.exception("the engine refused a request")
            self._failed.append((command.id, str(err)))
            return
        self._jobs[command.id] = _Job(command.id, engine, request)
        self._ids[request] = command.id

    def _score(self) -> None:
        """Score the prompt of one order and start it. One at a time, because the answers that are being written wait."""
        if not self._unscored:
            return
        command = self._unscored.popleft()
        prompt, engine = command.order.prompt, self._engines.get(command.order.model)
        self._submit(command)
        if engine is None or command.id not in self._jobs:
            return  # refused
        try:
            scores = engine.score(prompt, command.order.sampling.logprobs or 0)
        except Exception as err:
            log.exception("a prompt could not be scored")
            self._fault(engine, err)
            return
        self._rows += [(command.id, PROMPT, token, FORCED, None, s) for token, s in zip(prompt[1:], scores, strict=True)]

    def _step(self, engine: Engine) -> None:
        """One step of one engine. If it fails, all of the engine's requests do: they were computed together."""
        try:
            outputs = engine.step()
        except Exception as err:
            log.exception("a step of the engine failed")
            self._fault(engine, err)
            return
        self._faults = 0
        self._steps += 1
        finished: set[int] = set()
        for output in outputs:
            request = output.row.request
            id = self._ids.get(request)
            if id is None:
                continue  # cancelled while the step ran
            self._rows.append((id, output.row.index, output.token, output.mask, output.finish, output.logprobs))
            if output.finish and request.finished:
                finished.add(id)
        for id in finished:
            self._end(self._jobs[id])

    def _fault(self, engine: Engine, err: Exception) -> None:
        for job in [job for job in self._jobs.values() if job.engine is engine]:
            self._failed.append((job.id, f"{type(err).__name__}: {err}"))
            self._end(job)
        self._faults += 1
        try:
            if self._device.startswith("cuda"):
                torch.cuda.synchronize()  # after an error of the device every call fails, this one too
        except RuntimeError as broken:
            self._faults, err = FAULTS, broken
        if self._faults >= FAULTS:
            self._send(Step(self._rows, self._failed, self._gauges()))
            raise Broken(str(err)) from err

    def _end(self, job: _Job) -> None:
        """Release the request's part of the KV cache."""
        del self._jobs[job.id], self._ids[job.request]
        job.engine.cancel(job.request)  # without effect on one that has finished

    def _retire(self) -> None:
        """Free the engines that take no orders and have answered their last one."""
        for engine in [e for e in self._live if not e.busy and e not in self._engines.values()]:
            self._live.remove(engine)
            hits, queries, preemptions = _counts(engine)
            self._gone_hits += hits
            self._gone_queries += queries
            self._gone_preemptions += preemptions
            del engine
            gc.collect()
            if self._device.startswith("cuda"):
                torch.cuda.empty_cache()

    def _load(self, command: Load) -> None:
        """On the loader's thread. The loop takes the engine over when it is warm."""
        started = time.monotonic()
        try:
            engine = self._loaded_by(command, self._device, self._setup)
        except StageError as err:
            self._inbox.put(NotLoaded(command.model, str(err), err.code, err.hint))
        except Exception as err:
            log.exception("model %s cannot be loaded", command.model)
            self._inbox.put(NotLoaded(command.model, f"{type(err).__name__}: {err}", "load_failed", ""))
        else:
            log.info("loaded model %s on %s in %.1f s", command.model, self._device, time.monotonic() - started)
            self._inbox.put(_Made(command.model, engine))

    def _gauges(self) -> Gauges:
        waiting = blocks = free = 0
        hits, queries, preemptions = self._gone_hits, self._gone_queries, self._gone_preemptions
        for engine in self._live:
            waiting += engine.scheduler.waiting
            blocks += engine.blocks.count
            free += engine.blocks.free
            counts = _counts(engine)
            hits, queries, preemptions = hits + counts[0], queries + counts[1], preemptions + counts[2]
        running = len(self._jobs) - waiting
        return Gauges(running, waiting, blocks, blocks - free, hits, queries, preemptions, self._steps)

    def _send(self, report: Report) -> None:
        self._link.sendall(frame(report))


@dataclass(frozen=True, slots=True)
class _Made:
    model: str
    engine: Engine


def _counts(engine: Engine) -> tuple[int, int, int]:
    scheduler = engine.scheduler
    return scheduler.prefix_hits, scheduler.prefix_queries, scheduler.preemptions


def serve(link: socket.socket, gone: Callable[[], None], load: Loader = load) -> None:
    """Serve the commands of `link`. Calls `gone`, on another thread, once the other end has closed it."""
    frames = Frames()
    first: list[Command | Report] = []
    while not first:
        if not (data := _received(link)):
            return
        first = frames.feed(data)
    setup, *commands = first
    assert isinstance(setup, Setup)
    loop = EngineLoop(link, setup, load)

    def read() -> None:
        for message in commands:
            loop.put(message)
        while data := _received(link):
            for message in frames.feed(data):
                loop.put(message)
        loop.put(None)
        gone()

    threading.Thread(target=read, name="commands", daemon=True).start()
    loop.run()


def _received(link: socket.socket) -> bytes:
    try:
        return link.recv(1 << 20)
    except OSError:
        return b""


def main() -> int:
    """`python -m services.inference.engines.process FD`: serve the socket with this file descriptor."""
    # Ctrl-C and a stop reach the HTTP process as well. It answers the running requests first and then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logs.configure()
    try:
        serve(socket.socket(fileno=int(sys.argv[1])), gone=lambda: os._exit(0))
    except Broken as err:
        log.error("the engine process ends, so that a new one can start: %s", err)
        os._exit(1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
