"""Chooses the replica of an order: by its work in hand, and by how much of the prompt its cache is likely to hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol, TypeVar

from services.inference.engines.request import Order

BLOCK = 64  # tokens; shorter prefixes are not worth a longer queue
REMEMBERED = 16_384  # blocks per replica: about a million tokens


class Target(Protocol):
    @property
    def seen(self) -> Prefixes: ...

    @property
    def work(self) -> int:
        """Tokens that it still has to compute, roughly."""


T = TypeVar("T", bound=Target)


class Prefixes:
    """The beginnings of prompts that went to one replica, the last used ones."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def matched(self, blocks: Sequence[int]) -> int:
        """How many tokens at the beginning of the prompt with these blocks were seen."""
        known = next((i for i, block in enumerate(blocks) if block not in self._blocks), len(blocks))
        return known * BLOCK

    def remember(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > REMEMBERED:
            self._blocks.popitem(last=False)


def choose(order: Order, targets: Sequence[T]) -> T:
    """The target that is done first with the prompt. Ties go to the first one."""
    if len(targets) == 1:
        return targets[0]
    blocks = _blocks(order)
    best = min(targets, key=lambda target: target.work - target.seen.matched(blocks))
    best.seen.remember(blocks)
    return best


def _blocks(order: Order) -> list[int]:
    """A number for each full block of the prompt; it depends on the model and on all tokens before the block's end."""
    numbers: list[int] = []
    before = hash(order.model)
    for at in range(0, len(order.prompt) - BLOCK + 1, BLOCK):
        before = hash((before, *order.prompt[at : at + BLOCK]))
        numbers.append(before)
    return numbers
