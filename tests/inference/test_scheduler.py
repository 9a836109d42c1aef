"""The scheduler alone, over generators that only count: turns are fair, and a fault or a cancellation affects one request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from services.inference.scheduler import Column, EngineRequest, QueueFull, Scheduler


class Work:
    """Makes generators that record every step and begin only when the test opens the gate."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.steps: list[str] = []
        self.closed: list[str] = []

    def counting(self, name: str, steps: int, fault_at: int = -1) -> Callable[[], Iterator[Column]]:
        def run() -> Iterator[Column]:
            self.gate.wait(timeout=20)
            try:
                for i in range(steps):
                    if i == fault_at:
                        raise RuntimeError("out of memory")
                    self.steps.append(name)
                    yield [i], [1]
            finally:
                self.closed.append(name)

        return run


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(max_running=3, max_waiting=1)
    yield scheduler
    scheduler.close()


@pytest.fixture
def work() -> Work:
    return Work()


async def collect(request: EngineRequest) -> list[int]:
    return [tokens[0] async for tokens, _ in request.columns()]


async def test_requests_take_turns_step_by_step(scheduler: Scheduler, work: Work) -> None:
    requests = [scheduler.submit(work.counting(name, 40)) for name in "abc"]
    work.gate.set()
    assert await asyncio.gather(*map(collect, requests)) == [list(range(40))] * 3
    together = work.steps[work.steps.index("c") : 100]  # from the first step of the last one on
    assert all(set(together[i : i + 3]) == set("abc") for i in range(len(together) - 2))


async def test_one_that_waits_takes_the_place_of_one_that_ends(scheduler: Scheduler, work: Work) -> None:
    requests = [scheduler.submit(work.counting(name, steps)) for name, steps in zip("abcd", (2, 50, 50, 5), strict=True)]
    with pytest.raises(QueueFull):
        scheduler.submit(work.counting("e", 1))
    work.gate.set()
    await asyncio.gather(*map(collect, requests))
    assert "d" not in work.steps[: work.steps.index("a") + 1]
    assert work.closed[:2] == ["a", "d"]


async def test_a_fault_ends_one_request_only(scheduler: Scheduler, work: Work) -> None:
    bad = scheduler.submit(work.counting("bad", 10, fault_at=3))
    good = scheduler.submit(work.counting("good", 10))
    work.gate.set()
    with pytest.raises(RuntimeError, match="out of memory"):
        await collect(bad)
    assert await collect(good) == list(range(10))


async def test_a_cancelled_request_lets_go_of_its_state(scheduler: Scheduler, work: Work) -> None:
    request = scheduler.submit(work.counting("long", 10**9))
    work.gate.set()
    async for tokens, _ in request.columns():
        if tokens == [5]:
            request.cancel()
    assert work.closed == ["long"]
    assert (scheduler.running, scheduler.waiting) == (0, 0)


async def test_closing_ends_what_runs_and_what_waits(work: Work) -> None:
    scheduler = Scheduler(max_running=1, max_waiting=1)
    requests = [scheduler.submit(work.counting(name, 10**9)) for name in "ab"]
    work.gate.set()
    await asyncio.to_thread(scheduler.close)
    for request in requests:
        await collect(request)
    assert "b" not in work.steps
