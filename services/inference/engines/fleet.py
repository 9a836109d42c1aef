"""All engine processes of this service: one per GPU, or the number that was asked for."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from services.inference.engines.launch import Launch
from services.inference.engines.replica import Patience, Replica
from services.inference.engines.request import EngineLost, EngineRequest, Order, QueueFull
from services.inference.engines.router import choose
from services.inference.engines.wire import Load, Setup

log = logging.getLogger(__name__)

RETRIES = 1  # a request that kills its process must not kill all of them
TOO_MANY_FAILURES = 5  # starts in a row that came to nothing, after which only a new service may help


@dataclass(frozen=True, slots=True)
class Room:
    """Bounds of each replica. The engine runs `running` requests; `waiting` more may wait, with at most so many tokens of prompts."""

    running: int
    waiting: int
    waiting_tokens: int


class Fleet:
    """Use it as an async context manager. `replicas` None: one per GPU, or one on a CPU."""

    def __init__(self, launch: Launch, setup: Setup, room: Room, patience: Patience, replicas: int | None):
        self._launch, self._setup, self._room, self._patience, self._asked = launch, setup, room, patience, replicas
        self._wanted: dict[str, Load] = {}
        self._holders: dict[str, int] = {}
        self.replicas: list[Replica] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Fleet:
        self._add()
        self._tasks.append(asyncio.create_task(self._add_others()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def alive(self) -> bool:
        """False when engine processes cannot be started any more."""
        return any(replica.failures < TOO_MANY_FAILURES for replica in self.replicas)

    @property
    def requests(self) -> int:
        return sum(replica.requests for replica in self.replicas)

    def serves(self, model: str) -> bool:
        return any(model in replica.models for replica in self.replicas)

    def submit(self, order: Order) -> EngineRequest:
        """Send an order to a replica. Raises QueueFull, and EngineLost while no replica has the model."""
        request = EngineRequest(order)
        self._place(request)
        return request

    async def load(self, command: Load) -> int:
        """Load a model on all replicas and return its context. Raises ModelNotLoaded when no replica could load it.

        Each call holds the model, until as many calls of `unload`.
        """
        self._holders[command.model] = self._holders.get(command.model, 0) + 1
        self._wanted[command.model] = command
        # A replica that is being restarted loads the model when it is up; the others need not wait for it.
        replicas = [replica for replica in self.replicas if replica.up] or self.replicas
        results = await asyncio.gather(*(replica.load(command) for replica in replicas), return_exceptions=True)
        contexts = [result for result in results if isinstance(result, int)]
        if contexts:
            return contexts[0]
        self.unload(command.model)
        raise next(result for result in results if isinstance(result, BaseException))

    def unload(self, model: str) -> None:
        """Let go of a model. The engines free its memory when nobody holds it and its last request has ended."""
        self._holders[model] -= 1
        if self._holders[model] == 0:
            del self._holders[model], self._wanted[model]
            for replica in self.replicas:
                replica.unload(model)

    def abort(self) -> None:
        """End all requests: the service stops and cannot wait for them any longer."""
        for replica in self.replicas:
            replica.abort(EngineLost("The service is shutting down. Send the request again."))

    def _place(self, request: EngineRequest) -> None:
        order = request.order
        ready = [replica for replica in self.replicas if order.model in replica.models]
        if not ready:
            raise EngineLost("The engine is being restarted and will have the model again in a moment.")
        free = [replica for replica in ready if self._has_room(replica, order)]
        if not free:
            raise QueueFull
        choose(order, free).submit(request)

    def _has_room(self, replica: Replica, order: Order) -> bool:
        if replica.requests >= self._room.running + self._room.waiting:
            return False
        return not replica.waiting_tokens or replica.waiting_tokens + len(order.prompt) <= self._room.waiting_tokens

    def _lost(self, request: EngineRequest, begun: bool) -> None:
        """A process died with this request. Another one takes it over if the caller has not seen a part of the answer."""
        if not begun and request.attempts <= RETRIES:
            try:
                self._place(request)
            except (QueueFull, EngineLost):
                pass
            else:
                return
        request.end(EngineLost("The engine process died while it answered, and is being restarted. Send the request again."))

    def _add(self, device: int | None = None) -> None:
        replica = Replica(len(self.replicas), self._launch, self._setup, self._patience, self._wanted, self._lost)
        replica.device = device
        self.replicas.append(replica)
        self._tasks.append(asyncio.create_task(replica.run()))

    async def _add_others(self) -> None:
        """The first process tells how many GPUs there are. Then the others start."""
        first = self.replicas[0]
        hello = await asyncio.shield(first.hello)
        count = self._asked or hello.devices
        gpus = hello.device.startswith("cuda")
        if gpus:
            first.device = 0
        for number in range(1, count):
            self._add(number % hello.devices if gpus else None)
