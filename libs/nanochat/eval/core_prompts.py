"""CORE's prompts: an item and its shots as text, then as rows of tokens with the span that is scored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.contract.contract import StageError
from nanochat.eval.core_bundle import CoreTask, Item

SHOT_SEED = 1234


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """One sequence to score: `ids` begin with `<|bos|>`; the continuation is ids[start:end]."""

    ids: list[int]
    start: int
    end: int

    def cropped(self, limit: int) -> ScoredSequence:
        """The last `limit` tokens, at least one of them before the span."""
        over = max(0, len(self.ids) - limit)
        return ScoredSequence(self.ids[over:], max(1, self.start - over), self.end - over)


def shots_for(items: Sequence[Item], index: int, count: int) -> list[Item]:
    """The few-shot examples of item `index`: always the same ones, drawn from all other items."""
    others = [i for i in range(len(items)) if i != index]
    return [items[i] for i in random.Random(SHOT_SEED + index).sample(others, min(count, len(others)))]


def prompts(task: CoreTask, item: Item, shots: Sequence[Item]) -> list[str]:
    """The texts to tokenize: one for each choice or context; for language modelling without and with the continuation."""
    if task.kind == "multiple_choice":
        head = "".join(f"{s['query']}{task.delimiter}{s['choices'][s['gold']]}\n\n" for s in shots)
        return [f"{head}{item['query']}{task.delimiter}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        head = "".join(f"{s['context_options'][s['gold']]}{task.delimiter}{s['continuation']}\n\n" for s in shots)
        return [f"{head}{context}{task.delimiter}{item['continuation']}" for context in item["context_options"]]
    head = "".join(f"{s['context'].strip()}{task.delimiter}{s['continuation']}\n\n" for s in shots)
    without = f"{head}{item['context'].strip()}{task.delimiter}"
    # Stripped, because a delimiter's last blank alone is another token than the blank that begins the next word.
    return [without.strip(), without + item["continuation"]]


def rows(task: CoreTask, encoded: Sequence[Sequence[int]], bos: int) -> list[ScoredSequence]:
    """The encoded `prompts` as rows to score: one for each choice or context, or one for language modelling."""
    ids = [[bos, *tokens] for tokens in encoded]
    if task.kind == "multiple_choice":
        start = min(_common(ids), min(map(len, ids)) - 1)  # a choice that begins another keeps its last token
        return [ScoredSequence(row, start, len(row)) for row in ids]
    if task.kind == "schema":
        same = min(_common([row[::-1] for row in ids]), min(map(len, ids)) - 1)
        return [ScoredSequence(row, len(row) - same, len(row)) for row in ids]
    without, whole = ids
    if whole[: len(without)] != without or len(whole) == len(without):
        raise StageError(
            f"CORE task {task.label}: the prompt's tokens are no prefix of those with its continuation",
            code="core_prompt",
            hint="the tokenizer joins what the delimiter should keep apart",
        )
    return [ScoredSequence(whole, len(without), len(whole))]


def _common(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all have in common."""
    count = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        count += 1
    return count
