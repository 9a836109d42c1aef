"""The engine thread by itself, over a real engine: requests decode together; faults and cancellation stay where they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from nanochat.engine import Engine, Output, Sampling
from nanochat.tokenizer import Tokenizer
from services.inference.engine_thread import EngineThread
from services.inference.engines.request import EngineError, EngineRequest, Order, QueueFull
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SELF, WHO, Learnt

GREEDY = Sampling(temperature=0)


class Gated(Engine):
    """An engine whose steps wait until the test opens the gate, and fail when it says so."""

    def __init__(self, learnt: Learnt, tokenizer: Tokenizer):
        super().__init__(learnt.model, tokenizer, dtype=torch.float32)
        self.gate, self.broken, self.steps = threading.Event(), False, 0

    def step(self) -> list[Output]:
        assert self.gate.wait(timeout=20)
        if self.broken:
            raise RuntimeError("out of memory")
        self.steps += 1
        return super().step()


@pytest.fixture
def engine(learnt: Learnt, tokenizer: Tokenizer) -> Gated:
    return Gated(learnt, tokenizer)


@pytest.fixture
def engines(engine: Gated) -> Iterator[EngineThread]:
    engines = EngineThread(max_running=3, max_waiting=1)
    engines.load("first", engine)
    yield engines
    engines.close()


@pytest.fixture
def order(tokenizer: Tokenizer) -> Callable[..., Order]:
    def make(question: str, max_tokens: int = 200, model: str = "first") -> Order:
        prompt = tokenizer.render_for_completion({"messages": [{"role": "user", "content": question}]})
        return Order(model, prompt, GREEDY, max_tokens)

    return make


async def tokens(request: EngineRequest) -> list[int]:
    return [output.token async for outputs in request.outputs() for output in outputs if output.token is not None]


async def said(engine: Engine, *requests: EngineRequest) -> list[str]:
    return [engine.tokenizer.decode(answer) for answer in await asyncio.gather(*map(tokens, requests))]


async def test_requests_decode_together(engines: EngineThread, engine: Gated, order: Callable[..., Order]) -> None:
    requests = [engines.submit(order(question)) for question in (WHO, COUNT, WHO)]
    engine.gate.set()
    assert await said(engine, *requests) == [SELF, NUMBERS, SELF]
    longest = max(len(engine.tokenizer.encode(text)) for text in (SELF, NUMBERS))
    assert engine.steps <= longest + 8  # each step serves all of them; taking turns would need the sum of their lengths


async def test_one_that_waits_takes_the_place_of_one_that_ends(
    engines: EngineThread, engine: Gated, order: Callable[..., Order]
) -> None:
    requests = [engines.submit(order(WHO, n)) for n in (2, 20, 20, 5)]
    with pytest.raises(QueueFull):
        engines.submit(order(WHO))
    engine.gate.set()
    answers = await said(engine, *requests)
    assert [SELF.startswith(text) and len(text) > 0 for text in answers] == [True] * 4
    assert (engines.running, engines.waiting) == (0, 0)


async def test_a_fault_ends_the_requests_of_its_engine_only(
    engines: EngineThread, engine: Gated, order: Callable[..., Order], learnt: Learnt, tokenizer: Tokenizer
) -> None:
    other = Gated(learnt, tokenizer)
    engines.load("other", other)
    bad, good = engines.submit(order(FOREVER)), engines.submit(order(COUNT, model="other"))
    engine.broken = True
    engine.gate.set()
    other.gate.set()
    with pytest.raises(EngineError, match="out of memory"):
        await tokens(bad)
    assert await said(engine, good) == [NUMBERS]
    engine.broken = False
    assert await said(engine, engines.submit(order(WHO))) == [SELF]
    assert engine.blocks.free == engine.blocks.count


async def test_a_request_that_the_engine_refuses_ends_alone(
    engines: EngineThread, engine: Gated, order: Callable[..., Order]
) -> None:
    good = engines.submit(order(WHO))
    bad = engines.submit(Order("first", [10**6], GREEDY, 5))
    engine.gate.set()
    with pytest.raises(EngineError, match="outside the vocabulary"):
        await tokens(bad)
    assert await said(engine, good) == [SELF]


async def test_a_cancelled_request_frees_its_blocks(engines: EngineThread, engine: Gated, order: Callable[..., Order]) -> None:
    request = engines.submit(order(FOREVER, 900))
    engine.gate.set()
    seen = 0
    async for outputs in request.outputs():
        seen += len(outputs)
        if seen > 3:
            request.cancel()
    assert seen < 900
    while engines.running:
        await asyncio.sleep(0.01)
    assert engines.waiting == 0
    assert engine.blocks.free == engine.blocks.count


async def test_closing_ends_what_runs_and_what_waits(engine: Gated, order: Callable[..., Order]) -> None:
    engines = EngineThread(max_running=1, max_waiting=1)
    engines.load("first", engine)
    requests = [engines.submit(order(FOREVER)) for _ in range(2)]
    engine.gate.set()
    await asyncio.to_thread(engines.close)
    for request in requests:
        assert request.ended or await tokens(request) == []
