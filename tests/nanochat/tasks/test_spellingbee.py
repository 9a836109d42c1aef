"""SpellingBee and SimpleSpelling have the problems of nanochat's tasks, and no word of their tests is trained on."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from nanochat.contract.contract import StageError
from nanochat.tasks.base import reference
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource, read_word_list
from nanochat.tasks.spellingbee import QUESTIONS, Lists

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "words" / "words_alpha.txt"
needs_the_list = pytest.mark.skipif(not SHARED.is_file(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def english() -> TaskSource:
    return TaskSource(word_list_file=SHARED)


def problem(task: str, source: TaskSource, split: str, index: int) -> tuple[str, ...]:
    """Word, letter and count that a row asks for."""
    conversation = named(task, split, source, size=100_000)[index]
    if task == "simplespelling":
        return (reference(conversation).partition(":")[0],)
    parts = conversation["messages"][1]["content"]
    assert isinstance(parts, list)
    _, word, _, letter, _ = parts[2]["text"].split("'")
    return word, letter, reference(conversation).rpartition("#### ")[2]


def drawn_as_nanochat_does(words: tuple[str, ...], seed: int) -> tuple[str, ...]:
    rng = random.Random(seed)
    word = rng.choice(words)
    letter = rng.choice(word) if rng.random() < 0.9 else rng.choice("abcdefghijklmnopqrstuvwxyz")
    return word, letter, str(word.count(letter))


@needs_the_list
def test_the_problems_are_nanochats_row_by_row(english: TaskSource) -> None:
    words = read_word_list(SHARED)
    assert len(words) == 370_099
    other_order = list(words)
    random.Random(42).shuffle(other_order)
    held = Lists.of(words).held
    for index in (*range(256), 79_999):
        bee = problem("spellingbee", english, "train", index)
        assert bee == drawn_as_nanochat_does(words, index) or drawn_as_nanochat_does(words, index)[0] in held
        word = random.Random(index).choice(other_order)
        assert problem("simplespelling", english, "train", index) == (word,) or word in held
        assert problem("spellingbee", english, "test", index % 256) == drawn_as_nanochat_does(words, 10_000_000 + index % 256)


@needs_the_list
def test_almost_no_training_row_is_drawn_again(english: TaskSource) -> None:
    words = read_word_list(SHARED)
    held = Lists.of(words).held
    assert len(held) < 0.006 * len(words)
    again = sum(random.Random(index).choice(words) in held for index in range(10_000))
    assert again < 100


@needs_the_list
def test_tests_beyond_the_held_out_rows_ask_for_held_out_words(english: TaskSource) -> None:
    held = Lists.of(read_word_list(SHARED)).held
    assert all(problem("spellingbee", english, "test", index)[0] in held for index in (1000, 5000))


@needs_the_list
def test_a_row_of_a_long_list_takes_less_than_a_millisecond(english: TaskSource) -> None:
    for name in ("spellingbee", "simplespelling"):
        task = named(name, "train", english, size=80_000)
        assert task[0]
        started = time.process_time()
        for index in range(1000):
            assert task[index]
        assert time.process_time() - started < 1


def test_the_answer_counts_letter_by_letter_and_checks_with_python(source: TaskSource) -> None:
    for conversation in named("spellingbee", "train", source, size=300):
        parts = conversation["messages"][1]["content"]
        assert isinstance(parts, list)
        assert [part["type"] for part in parts] == ["text", "text", "python", "python_output", "text"]
        _, word, _, letter, _ = parts[2]["text"].split("'")
        lines = parts[0]["text"].split("\n")
        assert f"{word}:{','.join(word)}" in lines
        counted = [line for line in lines if line[:1].isdigit()]
        assert [line.partition(" ")[0] for line in counted] == [f"{i}:{char}" for i, char in enumerate(word, start=1)]
        hits = [line.rpartition(" hit! count=")[2] for line in counted if " hit!" in line]
        assert hits == [str(i) for i in range(1, word.count(letter) + 1)]
        assert parts[4]["text"].endswith(f"#### {word.count(letter)}")


def test_questions_are_as_various_as_nanochats(source: TaskSource) -> None:
    assert len(QUESTIONS) == len(set(QUESTIONS)) == 51
    assert sum(question.isascii() for question in QUESTIONS[:30]) == 30
    for question in QUESTIONS:
        assert question.count("{letter}") == question.count("{word}") == 1
    asked = [str(c["messages"][0]["content"]) for c in named("spellingbee", "train", source, size=2000)]
    marked = Counter(question.endswith("?") for question in asked)
    assert 0.45 < marked[True] / len(asked) < 0.6  # half, and two Spanish questions in 51
    english = [question for question in asked if question.isascii()]
    assert 0.25 < sum(question == question.lower() for question in english) / len(english) < 0.4
    assert len({question.encode()[:1] for question in asked}) > 15


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it has only 0 words"),
        (b"word\n" * 99, "it has only 99 words"),
        (b"word\n" * 100 + b"two words\n", "'two words' is no word"),
        (b"don't\n" * 100, "is no word"),
        (b"w\xfcrde\n" * 100, "cannot read the word list"),
    ],
)
def test_a_file_that_is_no_word_list_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(StageError, match=problem):
        named("spellingbee", "train", TaskSource(word_list_file=tmp_path / "words.txt"), size=1)[0]
    with pytest.raises(StageError, match="there is no word list"):
        named("spellingbee", "train", TaskSource(), size=1)[0]
