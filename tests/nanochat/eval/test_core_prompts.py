"""The prompts of CORE compared with examples that were written by hand."""

import random
from pathlib import Path

import pytest

from nanochat.contract.contract import StageError
from nanochat.data.core_bundle import CoreTask
from nanochat.engine.scorer import ScoredSequence
from nanochat.eval import core_prompts


def task(kind, delimiter=" ", shots=0):
    return CoreTask("a_task", Path("x.jsonl"), kind, shots, delimiter, 0.0)


CHOICE = {"query": "Question: What barks?", "choices": ["a cat", "a dog"], "gold": 1}
OTHER = {"query": "Question: What purrs?", "choices": ["a cat", "a dog"], "gold": 0}
SCHEMA = {
    "context_options": ["Ann thanked Bea because Ann", "Ann thanked Bea because Bea"],
    "continuation": "had helped.",
    "gold": 1,
}
WORDS = {"context": " The capital of France is ", "continuation": "Paris"}


def test_multiple_choice():
    assert core_prompts.prompts(task("multiple_choice", "\nAnswer: "), CHOICE, [OTHER]) == [
        "Question: What purrs?\nAnswer: a cat\n\nQuestion: What barks?\nAnswer: a cat",
        "Question: What purrs?\nAnswer: a cat\n\nQuestion: What barks?\nAnswer: a dog",
    ]


def test_schema():
    assert core_prompts.prompts(task("schema"), SCHEMA, [SCHEMA]) == [
        "Ann thanked Bea because Bea had helped.\n\nAnn thanked Bea because Ann had helped.",
        "Ann thanked Bea because Bea had helped.\n\nAnn thanked Bea because Bea had helped.",
    ]


def test_language_modelling():
    assert core_prompts.prompts(task("language_modeling"), WORDS, [WORDS]) == [
        "The capital of France is Paris\n\nThe capital of France is",
        "The capital of France is Paris\n\nThe capital of France is Paris",
    ]
    assert core_prompts.prompts(task("language_modeling", "\nAnswer: "), WORDS, []) == [
        "The capital of France is\nAnswer:",
        "The capital of France is\nAnswer: Paris",
    ]


def test_shots_are_drawn_by_the_items_seed_and_never_contain_the_item():
    items = [{"n": i} for i in range(30)]
    shots = core_prompts.shots_for(items, 4, 10)
    others = [i for i in range(30) if i != 4]
    assert [s["n"] for s in shots] == random.Random(1234 + 4).sample(others, 10)
    assert core_prompts.shots_for(items, 4, 10) == shots
    assert len(core_prompts.shots_for(items[:3], 0, 10)) == 2


def test_spans_of_multiple_choice_begin_where_the_choices_differ():
    rows = core_prompts.rows(task("multiple_choice"), [[5, 6, 7], [5, 6, 8, 9]], 0)
    assert rows == [ScoredSequence([0, 5, 6, 7], 3, 4), ScoredSequence([0, 5, 6, 8, 9], 3, 5)]


def test_a_choice_that_is_a_prefix_of_another_is_still_scored():
    rows = core_prompts.rows(task("multiple_choice"), [[5, 6], [5, 6, 8]], 0)
    assert rows == [ScoredSequence([0, 5, 6], 2, 3), ScoredSequence([0, 5, 6, 8], 2, 4)]


def test_spans_of_a_schema_are_the_common_end_of_the_contexts():
    rows = core_prompts.rows(task("schema"), [[1, 2, 7, 8], [3, 7, 8]], 0)
    assert rows == [ScoredSequence([0, 1, 2, 7, 8], 3, 5), ScoredSequence([0, 3, 7, 8], 2, 4)]


def test_the_span_of_language_modelling_is_the_continuation():
    assert core_prompts.rows(task("language_modeling"), [[1, 2], [1, 2, 3, 4]], 0) == [ScoredSequence([0, 1, 2, 3, 4], 3, 5)]
    with pytest.raises(StageError, match="a_task"):
        core_prompts.rows(task("language_modeling"), [[1, 9], [1, 2, 3]], 0)


def test_cropping_takes_from_the_left_and_keeps_one_token_before_the_span():
    row = ScoredSequence(list(range(10)), 8, 10)
    assert row.cropped(20) == row
    assert row.cropped(5) == ScoredSequence([5, 6, 7, 8, 9], 3, 5)
    assert ScoredSequence(list(range(10)), 2, 10).cropped(5) == ScoredSequence([5, 6, 7, 8, 9], 1, 5)
