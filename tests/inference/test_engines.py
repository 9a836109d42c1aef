"""The fleet of engines by itself: requests decode together; faults and cancellation stay where they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from nanochat.contract.contract import Artifact
from nanochat.engine import Engine, Output, Sampling
from nanochat.tokenizer import Tokenizer
from services.inference.engines.fleet import Fleet, Room
from services.inference.engines.models import load
from services.inference.engines.replica import Patience
from services.inference.engines.request import EngineError, EngineLost, EngineRequest, ModelNotLoaded, Order, QueueFull
from services.inference.engines.wire import Load, Setup
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SELF, WHO
from tests.inference.server import in_thread

GREEDY = Sampling(temperature=0)
Ask = Callable[..., Order]


class Gated(Engine):
    """An engine whose steps wait until the test opens the gate, and fail while it says so."""

    gate: threading.Event
    broken = False
    steps = 0

    def step(self) -> list[Output]:
        assert self.gate.wait(timeout=20)
        if self.broken:
            raise RuntimeError("out of memory")
        self.steps += 1
        return super().step()


class Gates:
    """Loads models with a gate each."""

    def __init__(self) -> None:
        self.engines: dict[str, Gated] = {}  # the last one of each model
        self.opened = False

    def open(self) -> None:
        """Open all gates, those of later engines too."""
        self.opened = True
        for engine in self.engines.values():
            engine.gate.set()

    def load(self, command: Load, device: str, setup: Setup) -> Engine:
        engine = load(command, device, setup)
        engine.__class__ = Gated
        assert isinstance(engine, Gated)
        engine.gate = threading.Event()
        if self.opened:
            engine.gate.set()
        self.engines[command.model] = engine
        return engine


@pytest.fixture
def gates() -> Gates:
    return Gates()


@pytest.fixture
def command(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Callable[[str], Load]:
    return lambda model: Load(model, model_artifact, tokenizer_artifact)


@pytest.fixture
async def fleet(gates: Gates, command: Callable[[str], Load]) -> AsyncIterator[Fleet]:
    setup = Setup("cpu", max_rows=3, cache_share=0.4, kv_cache="model", weights="model", threads=None)
    room = Room(running=3, waiting=1, waiting_tokens=500)
    async with Fleet(partial(in_thread, load=gates.load), setup, room, Patience(30, 30), None) as fleet:
        assert await fleet.load(command("first")) == 1024
        yield fleet
        gates.open()


@pytest.fixture
def order(tokenizer: Tokenizer) -> Ask:
    def make(question: str, max_tokens: int = 200, model: str = "first", n: int = 1) -> Order:
        prompt = tokenizer.render_for_completion({"messages": [{"role": "user", "content": question}]})
        return Order(model, prompt, GREEDY, max_tokens, n)

    return make


async def tokens(request: EngineRequest) -> list[int]:
    return [output.token async for outputs in request.outputs() for output in outputs if output.token is not None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def said(tokenizer: Tokenizer) -> Callable[..., object]:
    async def read(*requests: EngineRequest) -> list[str]:
        return [tokenizer.decode(answer) for answer in await asyncio.gather(*map(tokens, requests))]

    return read


async def test_requests_decode_together(fleet: Fleet, gates: Gates, order: Ask, said: Callable, tokenizer: Tokenizer) -> None:
    requests = [fleet.submit(order(question)) for question in (WHO, COUNT, WHO)]
    await until(lambda: fleet.replicas[0].requests == 3)
    gates.engines["first"].gate.set()
    assert await said(*requests) == [SELF, NUMBERS, SELF]
    longest = max(len(tokenizer.encode(text)) for text in (SELF, NUMBERS))
    # Each step serves all of them; taking turns would need the sum of their lengths.
    assert gates.engines["first"].steps <= longest + 8


async def test_one_that_waits_takes_the_place_of_one_that_ends(fleet: Fleet, gates: Gates, order: Ask, said: Callable) -> None:
    requests = [fleet.submit(order(WHO, n)) for n in (2, 20, 20, 5)]
    with pytest.raises(QueueFull):
        fleet.submit(order(WHO))
    gates.engines["first"].gate.set()
    answers = await said(*requests)
    assert [SELF.startswith(text) and len(text) > 0 for text in answers] == [True] * 4
    assert fleet.requests == 0


async def test_long_prompts_fill_the_queue_before_their_number_does(fleet: Fleet, gates: Gates, order: Ask) -> None:
    fleet.submit(order("x" * 600))  # one alone is taken, however long it is
    with pytest.raises(QueueFull):
        fleet.submit(order("y" * 300))
    gates.engines["first"].gate.set()
    await until(lambda: fleet.replicas[0].waiting_tokens == 0)
    fleet.submit(order("y" * 300)).cancel()


async def test_a_fault_ends_the_requests_of_its_engine_only(
    fleet: Fleet, gates: Gates, order: Ask, said: Callable, command: Callable[[str], Load]
) -> None:
    await fleet.load(command("other"))
    bad, good = fleet.submit(order(FOREVER)), fleet.submit(order(COUNT, model="other"))
    engine = gates.engines["first"]
    engine.broken = True
    for each in gates.engines.values():
        each.gate.set()
    with pytest.raises(EngineError, match="out of memory"):
        await tokens(bad)
    assert await said(good) == [NUMBERS]
    engine.broken = False
    assert await said(fleet.submit(order(WHO))) == [SELF]
    assert engine.blocks.free == engine.blocks.count
    assert fleet.replicas[0].starts == 1


async def test_an_engine_that_keeps_failing_is_started_anew(fleet: Fleet, gates: Gates, order: Ask, said: Callable) -> None:
    gates.engines["first"].broken = True
    gates.open()
    for _ in range(3):
        with pytest.raises(EngineError):
            await tokens(fleet.submit(order(WHO)))
    await until(lambda: fleet.replicas[0].starts == 2 and fleet.serves("first"))
    assert await said(fleet.submit(order(WHO))) == [SELF]


async def test_a_request_that_the_engine_refuses_ends_alone(fleet: Fleet, gates: Gates, order: Ask, said: Callable) -> None:
    good = fleet.submit(order(WHO))
    bad = fleet.submit(Order("first", [10**6], GREEDY, 5))
    gates.engines["first"].gate.set()
    with pytest.raises(EngineError, match="outside the vocabulary"):
        await tokens(bad)
    assert await said(good) == [SELF]


async def test_all_answers_of_a_request_end_in_one_step(fleet: Fleet, gates: Gates, order: Ask) -> None:
    gates.engines["first"].gate.set()
    request = fleet.submit(order(WHO, n=3))
    async with asyncio.timeout(20):
        ends = [output.index async for outputs in request.outputs() for output in outputs if output.finish]
    assert sorted(ends) == [0, 1, 2]


async def test_a_cancelled_request_frees_its_blocks(fleet: Fleet, gates: Gates, order: Ask) -> None:
    request = fleet.submit(order(FOREVER, 900))
    engine = gates.engines["first"]
    engine.gate.set()
    seen = 0
    async for outputs in request.outputs():
        seen += len(outputs)
        if seen > 3:
            request.cancel()
    assert seen < 900
    assert fleet.requests == 0
    await until(lambda: engine.blocks.free == engine.blocks.count)
    await until(lambda: fleet.replicas[0].gauges.blocks_used == 0)


async def test_a_model_is_in_memory_until_nobody_holds_it(
    fleet: Fleet, gates: Gates, order: Ask, said: Callable, command: Callable[[str], Load]
) -> None:
    await fleet.load(command("first"))
    last = fleet.submit(order(WHO))
    fleet.unload("first")
    assert fleet.serves("first")
    fleet.unload("first")
    assert not fleet.serves("first")
    with pytest.raises(EngineLost):
        fleet.submit(order(WHO))
    gates.engines["first"].gate.set()
    assert await said(last) == [SELF]
    await until(lambda: fleet.replicas[0].gauges.blocks == 0)


async def test_a_model_that_cannot_be_loaded_says_why(fleet: Fleet, command: Callable[[str], Load]) -> None:
    wrong = command("wrong")
    with pytest.raises(ModelNotLoaded, match="has changed since it was published"):
        await fleet.load(Load("wrong", Artifact(path=wrong.weights.path, sha256="0" * 64), wrong.tokenizer))
    assert fleet.serves("first")


async def test_replicas_are_chosen_by_work_and_by_prefix(command: Callable[[str], Load], order: Ask, gates: Gates) -> None:
    setup, room = Setup("cpu", max_rows=3, cache_share=0.4, kv_cache="model", weights="model", threads=None), Room(3, 1, 10_000)
    gates.open()
    async with Fleet(partial(in_thread, load=gates.load), setup, room, Patience(30, 30), replicas=2) as fleet:
        await until(lambda: len(fleet.replicas) == 2 and all(replica.up for replica in fleet.replicas))
        first, second = fleet.replicas
        await fleet.load(command("first"))
        long, other = order("the same long beginning " * 8), order("another beginning, which is as long " * 6)
        fleet.submit(long)
        fleet.submit(other)
        assert (first.requests, second.requests) == (1, 1)
        fleet.abort()
        await until(lambda: fleet.requests == 0)
        for _ in range(2):  # both are idle: each prompt goes where it was read before
            fleet.submit(other)
            assert (first.requests, second.requests) == (0, 1)
            fleet.abort()
