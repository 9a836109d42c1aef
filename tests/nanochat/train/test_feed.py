"""Prefetching: batches stay in order, no more are loaded than allowed, and none after a failure."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat.contract.contract import StageError
from nanochat.train.feed import AHEAD, Feed, LoadedBatch, Prefetcher

CUDA = pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


class Counting:
    """A loader whose batch n is filled with n. The state is the number of batches drawn. Draw `fail_at` fails."""

    def __init__(self, fail_at: int = -1):
        self.drawn, self.fail_at = 0, fail_at
        self.changed = threading.Condition()

    def next_batch(self) -> tuple[Tensor, Tensor]:
        with self.changed:
            if self.drawn == self.fail_at:
                raise StageError("shard x is missing", code="shard_missing")
            self.drawn += 1
            self.changed.notify_all()
            batch = torch.full((2, 3), self.drawn)
            return batch, batch + 1

    def state(self) -> dict[str, Any]:
        return {"drawn": self.drawn}

    def draw(self) -> LoadedBatch:
        return LoadedBatch(*self.next_batch(), 6, self.state(), self.drawn / 100)

    def wait_for(self, drawn: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.drawn >= drawn, 20)


def test_results_come_in_order_and_a_few_are_prefetched() -> None:
    loader = Counting()
    ahead = Prefetcher(loader.draw, 3)
    for n in range(1, 30):
        batch = ahead.take()
        ahead.fill()
        assert (batch.inputs == n).all()
        assert batch.state == {"drawn": n}
        loader.wait_for(n + 3)
        assert loader.drawn == n + 3
    ahead.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]


def test_a_failed_draw_raises_in_its_turn_and_ends_prefetching() -> None:
    loader = Counting(fail_at=5)
    ahead = Prefetcher(loader.draw, 3)
    for n in range(1, 6):
        assert (ahead.take().inputs == n).all()
        ahead.fill()
    with pytest.raises(StageError, match="shard x is missing"):
        ahead.take()
    loader.fail_at = -1
    with pytest.raises(RuntimeError):
        ahead.take()
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_state_is_that_of_the_batch_taken(device: str) -> None:
    loader = Counting()
    feed = Feed(loader, torch.device(device), lambda: loader.drawn / 100)
    assert feed.state == {"drawn": 0}
    for n in range(1, 9):
        inputs, targets = feed.take()
        feed.draw_ahead()
        assert inputs.device == torch.device(device)
        assert (inputs == n).all()
        assert (targets == n + 1).all()
        if device != "cpu":
            loader.wait_for(n + AHEAD)
        assert feed.state == {"drawn": n}
        assert feed.progress == n / 100
    assert feed.waited > 0
    feed.close()


def test_nothing_is_prefetched_without_a_call_of_fill() -> None:
    loader = Counting()
    ahead = Prefetcher(loader.draw, 3)
    for n in range(1, 4):
        assert (ahead.take().inputs == n).all()
        loader.wait_for(3)
    assert loader.drawn == 3
    assert (ahead.take().inputs == 4).all()  # none was left
    ahead.close()
