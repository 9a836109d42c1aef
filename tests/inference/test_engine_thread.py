"""The engine thread by itself, over a real engine: requests decode together; faults and cancellation stay where they are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import torch

from nanochat.engine import Engine, Output, Sampling
from nanochat.tokenizer import Tokenizer
from services.inference.engine_thread import EngineRequest, EngineThread, Order, QueueFull
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
def engines() -> Iterator[EngineThread]:
    engines = EngineThread(max_running=3, max_waiting=1)
    yield engines
    engines.close()


def order(engine: Engine, question: str, max_tokens: int = 200) -> Order:
    prompt = engine.tokenizer.render_for_completion({"messages": [{"role": "user", "content": question}]})
    return Order(engine, prompt, GREEDY, max_tokens)


async def answer(request: EngineRequest) -> str:
    tokens = [output.token async for outputs in request.outputs() for output in outputs if output.token is not None]
    return request.order.engine.tokenizer.decode(tokens)


async def test_requests_decode_together(engines: EngineThread, engine: Gated) -> None:
    requests = [engines.submit(order(engine, question)) for question in (WHO, COUNT, WHO)]
    engine.gate.set()
    assert await asyncio.gather(*map(answer, requests)) == [SELF, NUMBERS, SELF]
    longest = max(len(engine.tokenizer.encode(text)) for text in (SELF, NUMBERS))
    assert engine.steps <= longest + 8  # each step serves all of them; taking turns would need the sum of their lengths


async def test_one_that_waits_takes_the_place_of_one_that_ends(engines: EngineThread, engine: Gated) -> None:
    requests = [engines.submit(order(engine, WHO, n)) for n in (2, 20, 20, 5)]
    with pytest.raises(QueueFull):
        engines.submit(order(engine, WHO))
    engine.gate.set()
    answers = await asyncio.gather(*map(answer, requests))
    assert [SELF.startswith(text) and len(text) > 0 for text in answers] == [True] * 4
    assert (engines.running, engines.waiting) == (0, 0)


async def test_a_fault_ends_the_requests_of_its_engine_only(
    engines: EngineThread, engine: Gated, learnt: Learnt, tokenizer: Tokenizer
) -> None:
    other = Gated(learnt, tokenizer)
    bad, good = engines.submit(order(engine, FOREVER)), engines.submit(order(other, COUNT))
    engine.broken = True
    engine.gate.set()
    other.gate.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        await answer(bad)
    assert await answer(good) == NUMBERS
    engine.broken = False
    assert await answer(engines.submit(order(engine, WHO))) == SELF
    assert engine.blocks.free == engine.blocks.count


async def test_a_request_that_the_engine_refuses_ends_alone(engines: EngineThread, engine: Gated) -> None:
    good = engines.submit(order(engine, WHO))
    bad = engines.submit(Order(engine, [10**6], GREEDY, 5))
    engine.gate.set()
    with pytest.raises(ValueError, match="outside the vocabulary"):
        await answer(bad)
    assert await answer(good) == SELF


async def test_a_cancelled_request_frees_its_blocks(engines: EngineThread, engine: Gated) -> None:
    request = engines.submit(order(engine, FOREVER, 900))
    engine.gate.set()
    seen = 0
    async for outputs in request.outputs():
        seen += len(outputs)
        if seen > 3:
            request.cancel()
    assert seen < 900
    assert (engines.running, engines.waiting) == (0, 0)
    assert engine.blocks.free == engine.blocks.count


async def test_closing_ends_what_runs_and_what_waits(engine: Gated) -> None:
    engines = EngineThread(max_running=1, max_waiting=1)
    requests = [engines.submit(order(engine, FOREVER)) for _ in range(2)]
    engine.gate.set()
    await asyncio.to_thread(engines.close)
    for request in requests:
        await answer(request)
    assert requests[1].request is None
