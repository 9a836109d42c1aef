"""Tasks that make their own rows: the same ones every time, right answers, and a test split that training never sees."""

import string
from collections.abc import Callable, Sequence

import pytest

from nanochat.engine.tools import calculate
from nanochat.tasks import identity
from nanochat.tasks.base import Conversation, Part, reference
from nanochat.tasks.catalog import TASKS
from nanochat.tasks.dialogue import held_out
from nanochat.tasks.generated import bare
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource
from nanochat.tokenizer import Tokenizer

GENERATED = [task.name for task in TASKS if task.kind == "generated"]
ALL = pytest.mark.parametrize("name", GENERATED)


WORD_TASKS = {"of the corpus": ("spelling", "counting"), "of the word list": ("simplespelling", "spellingbee")}


def prompts(task: Sequence[Conversation]) -> set[str]:
    return {str(m["content"]) for c in task for m in c["messages"] if m["role"] == "user"}


# What a row asks for, whatever the wording: a word, an expression, or the questions without greeting, case and marks.
ASKED: dict[str, Callable[[Conversation], set[str]]] = {
    "spelling": lambda c: {reference(c).partition(":")[0]},
    "simplespelling": lambda c: {reference(c).partition(":")[0]},
    "spellingbee": lambda c: {parts_of(c)[2]["text"].split("'")[1]},
    "counting": lambda c: {reference(c).partition(":")[0]},
    "sums": lambda c: {p["text"] for p in parts_of(c) if p["type"] == "python"},
    "identity": lambda c: {without_opener(str(m["content"])) for m in c["messages"] if m["role"] == "user"},
}


def parts_of(conversation: Conversation) -> list[Part]:
    content = conversation["messages"][-1]["content"]
    assert isinstance(content, list)
    return content


def without_opener(question: str) -> str:
    text = bare(question)
    for opener in sorted(map(bare, identity.OPENERS), key=len, reverse=True):
        if opener and text.startswith(f"{opener} ") and text.removeprefix(opener).strip() in KNOWN:
            return text.removeprefix(opener).strip()
    return text


KNOWN = {bare(question) for topic in identity.TOPICS.values() for question in topic.asked}


@ALL
def test_nothing_that_a_test_asks_for_is_asked_for_in_training(name: str, source: TaskSource) -> None:
    train, test = (named(name, split, source, size=1500)[:] for split in ("train", "test"))
    asked_in_training, asked_in_tests = (set().union(*(ASKED[name](c) for c in rows)) for rows in (train, test))
    assert not asked_in_training & asked_in_tests
    assert 0 < len(asked_in_tests) < len(asked_in_training)
    wordings = [{prompt.casefold().strip(" .?!") for prompt in prompts(rows)} for rows in (train, test)]
    assert not wordings[0] & wordings[1]


@pytest.mark.parametrize("names", WORD_TASKS.values(), ids=WORD_TASKS)
def test_a_word_of_one_tasks_tests_is_in_no_other_tasks_training(names: tuple[str, ...], source: TaskSource) -> None:
    trained = {name: set().union(*(ASKED[name](c) for c in named(name, "train", source, size=1500))) for name in names}
    tested = {name: set().union(*(ASKED[name](c) for c in named(name, "test", source, size=200))) for name in names}
    assert not set().union(*trained.values()) & set().union(*tested.values())


def test_every_topic_of_identity_is_trained_on_and_tested() -> None:
    held = held_out(identity.TOPICS)
    for topic in identity.TOPICS.values():
        asked = {bare(question) for question in topic.asked}
        assert asked & held
        assert len(asked & held) <= len(asked) / 4


@ALL
def test_rows_are_the_same_every_time_and_a_smaller_size_is_a_prefix(name: str, source: TaskSource) -> None:
    rows = named(name, "train", source, size=50)[:]
    assert rows == named(name, "train", source, size=50)[:]
    assert rows[:20] == named(name, "train", source, size=20)[:]
    assert rows[:7] == named(name, "train", source, size=50, limit=7)[:]
    assert len({str(r) for r in rows}) > 25


@ALL
def test_rows_render_and_are_short(name: str, source: TaskSource, tokenizer: Tokenizer) -> None:
    for conversation in named(name, "train", source, size=100):
        ids, mask = tokenizer.render(conversation, 4096)
        assert any(mask)
        assert len(ids) < 400


@pytest.mark.parametrize("name", ["spelling", "counting", "spellingbee", "sums"])
def test_the_reference_is_right_and_something_else_is_wrong(name: str, source: TaskSource) -> None:
    for conversation in named(name, "test", source, size=100):
        task = named(name, "test", source)
        assert task.evaluate(conversation, reference(conversation))
        assert not task.evaluate(conversation, reference(conversation) + "1")
        assert not task.evaluate(conversation, "")


@pytest.mark.parametrize("name", ["counting", "spellingbee", "sums"])
def test_every_tool_call_gives_the_output_that_follows_it(name: str, source: TaskSource) -> None:
    for conversation in named(name, "train", source, size=200):
        parts = conversation["messages"][1]["content"]
        assert isinstance(parts, list)
        calls = [p["text"] for p in parts if p["type"] == "python"]
        outputs = [p["text"] for p in parts if p["type"] == "python_output"]
        assert calls
        assert [calculate(c) for c in calls] == outputs


def test_spelling_and_counting_use_the_words_of_the_corpus(source: TaskSource) -> None:
    for conversation in named("spelling", "train", source, size=60):
        word, _, letters = str(conversation["messages"][1]["content"]).partition(":")
        assert word in source.words
        assert letters.replace(",", "") == word
    for conversation in named("counting", "train", source, size=60):
        text = reference(conversation)
        word = text.partition(":")[0]
        assert word in source.words
        assert [line[2] for line in text.split("\n") if line[:1].isdigit() and line[1:2] == ":"] == list(word)


def test_frequent_words_come_more_often(source: TaskSource) -> None:
    words = [str(c["messages"][1]["content"]).partition(":")[0] for c in named("spelling", "train", source, size=800)]
    quarter = set(source.words[: len(source.words) // 4])
    assert 0.3 < sum(w in quarter for w in words) / len(words) < 0.7


def test_a_letter_that_is_not_in_the_word_is_asked_about_too(source: TaskSource) -> None:
    answers = [reference(c).rpartition("#### ")[2] for c in named("counting", "train", source, size=300)]
    assert {"0", "1", "2"} <= set(answers)
    assert set("".join(answers)) <= set(string.digits)


def test_identity_has_several_topics_and_turns(source: TaskSource) -> None:
    task = named("identity", "train", source, size=1000)
    turns = {len(c["messages"]) for c in task}
    assert {2, 4, 6} <= turns
    assert sum("nanochat" in str(c) for c in task) > 100
    with pytest.raises(TypeError, match="training only"):
        task.evaluate(task[0], "hello")
