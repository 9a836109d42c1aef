"""The prompts of CORE: an item and its few-shot examples as text, then as token sequences with the span to score."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nanochat.contract.contract import StageError
from nanochat.data.core_bundle import CoreTask, Item
from nanochat.engine.scorer import ScoredSequence, common_prefix

SHOT_SEED = 1234  # plus the index of the item


def shots_for(items: Sequence[Item], index: int, count: int) -> list[Item]:
    """Draw the few-shot examples of item `index` from all other items. They are always the same."""
    others = range(len(items) - 1)  # number `index` and those after it stand for their successors
    return [items[i + (i >= index)] for i in random.Random(SHOT_SEED + index).sample(others, min(count, len(others)))]


def prompts(task: CoreTask, item: Item, shots: Sequence[Item]) -> list[str]:
    """The texts to tokenize: one for each choice or context; for language modelling, one without and one with continuation."""
    if task.kind == "multiple_choice":
        head = "".join(f"{s['query']}{task.delimiter}{s['choices'][s['gold']]}\n\n" for s in shots)
        return [f"{head}{item['query']}{task.delimiter}{choice}" for choice in item["choices"]]
    if task.kind == "schema":
        head = "".join(f"{s['context_options'][s['gold']]}{task.delimiter}{s['continuation']}\n\n" for s in shots)
        return [f"{head}{context}{task.delimiter}{item['continuation']}" for context in item["context_options"]]
    head = "".join(f"{s['context'].strip()}{task.delimiter}{s['continuation']}\n\n" for s in shots)
    without = f"{head}{item['context'].strip()}{task.delimiter}"
    # Strip the last space: on its own it is a different token from a space that begins the next word.
    return [without.strip(), without + item["continuation"]]


def rows(task: CoreTask, encoded: Sequence[Sequence[int]], bos: int) -> list[ScoredSequence]:
    """Turn the encoded `prompts` into sequences to score: one for each choice or context, or one for language modelling.

    The span of multiple choice begins where the choices differ; that of a schema is the common end of the contexts. Raises
    StageError when the prompt's tokens do not begin those of prompt and continuation.
    """
    ids = [[bos, *tokens] for tokens in encoded]
    if task.kind == "multiple_choice":
        start = min(
            common_prefix(ids), min(map(len, ids)) - 1
        )  # if one choice is a prefix of another, its last token is scored
        return [ScoredSequence(row, start, len(row)) for row in ids]
    if task.kind == "schema":
        same = min(common_prefix([row[::-1] for row in ids]), min(map(len, ids)) - 1)
        return [ScoredSequence(row, len(row) - same, len(row)) for row in ids]
    without, whole = ids
    if whole[: len(without)] != without or len(whole) == len(without):
        raise StageError(
            f"CORE task {task.label}: the tokens of a prompt are not a prefix of the tokens of prompt and continuation",
            code="core_prompt",
            hint="the tokenizer merges text across the delimiter",
        )
    return [ScoredSequence(whole, len(without), len(whole))]
