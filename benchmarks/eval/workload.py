"""The examples that are evaluated, as tokens: those of a folder of real data, or random ones of the real sizes.

`sizes.json` has evenly spaced samples of the real sizes of each task, so that the random examples need no data, no tokenizer and none
of the libraries that read them. `benchmarks.eval.sizes` wrote it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanochat.engine.scorer import ScoredSequence

SIZES = Path(__file__).with_name("sizes.json")
FIRST_TOKEN = 16  # random tokens start here: before them are the special ones of `benchmarks.engine.subject`


@dataclass(frozen=True)
class CoreTask:
    """Items of a CORE task, each with a sequence for each choice. They stand for all `rows` of the task."""

    label: str
    rows: int
    items: list[list[ScoredSequence]]


@dataclass(frozen=True)
class ChatTask:
    """Problems of a chat task. A generative one has `answers`: the number of tokens to generate for each."""

    name: str
    rows: int
    prompts: list[list[int]]
    answers: list[int] | None


def generated(share: float, least: int, vocab_size: int, limit: int, context: int) -> tuple[list[CoreTask], list[ChatTask]]:
    """Random tokens in the sizes of the real examples: a `share` of each task, but at least `least` where it has so many.

    Sequences end at `limit` tokens, as the model's tables of positions do; prompt and answer of a chat fit into `context`.
    """
    sizes = json.loads(SIZES.read_text(encoding="utf-8"))
    draw = _Tokens(vocab_size)
    core = []
    for label, task in sizes["core"].items():
        count = taken(task["rows"], share, least)
        drawn = [_item(draw, size, limit) for size in _spread(task["sizes"], count)]
        core.append(CoreTask(label, task["rows"], drawn))
    chat = []
    for name, task in sizes["chat"].items():
        drawn = list(_spread(task["sizes"], taken(task["rows"], share, least)))
        answers = [min(size[1], context // 2) for size in drawn] if task["generative"] else None
        room = [context - (answers[i] if answers else 0) - 1 for i in range(len(drawn))]
        prompts = [draw(min(size[0], room[i])) for i, size in enumerate(drawn)]
        chat.append(ChatTask(name, task["rows"], prompts, answers))
    return core, chat


def taken(rows: int, share: float, least: int) -> int:
    return min(rows, max(least, round(rows * share)))


class _Tokens:
    def __init__(self, vocab_size: int):
        self._random, self._vocab_size = random.Random(1), vocab_size

    def __call__(self, count: int) -> list[int]:
        return self._random.choices(range(FIRST_TOKEN, self._vocab_size), k=count)


def _spread(sizes: list[Any], count: int) -> Iterator[Any]:
    """Evenly from the whole sample, in a shuffled order: the sample is sorted by size."""
    order = [sizes[i * len(sizes) // count % len(sizes)] if count < len(sizes) else sizes[i % len(sizes)] for i in range(count)]
    random.Random(2).shuffle(order)
    return iter(order)


def _item(draw: _Tokens, size: list[int], limit: int) -> list[ScoredSequence]:
    """`size` is the shared tokens, the tokens of the span (0: all that are not shared), then each sequence's own tokens."""
    shared, span, *own = size
    shared = max(1, min(shared, limit - max(own)))
    beginning = draw(shared)
    return [ScoredSequence([*beginning, *draw(count)], shared + count - (span or count), shared + count) for count in own]
