"""Which conversations ask a question of an evaluation: training on them would make its figure worthless."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from nanochat.contract.contract import StageError
from nanochat.data import core_bundle
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TASKS
from nanochat.tasks.generated import bare
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource

CHOICE, CHOICES = "multiple choice question ", "\n- "  # around the question of a rendered multiple choice
LEAST = 20  # characters of a question, without marks; shorter ones are alike by chance


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions of test splits, without case and marks, and the task of each."""

    tasks: list[str]
    _task_of: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: TaskSource | None, core: Path | None) -> Questions:
        """All questions of the judged data sets that the source has, and of the tasks in the folder of a CORE bundle."""
        found = cls([])
        for name, texts in chain(_of_source(source) if source else (), _of_bundle(core) if core else ()):
            found.tasks.append(name)
            for text in texts:
                found._task_of.setdefault(text, name)
        return found

    def asked_in(self, conversation: Conversation) -> str | None:
        """The task that asks the same as one of the user's messages."""
        return next((self._task_of[text] for text in questions(conversation) if text in self._task_of), None)


def _of_source(source: TaskSource) -> Iterator[tuple[str, Iterator[str]]]:
    for task in TASKS:
        if task.judge is None or f"{task.name}/test" not in source.files:
            continue
        try:
            rows = named(task.name, "test", source)
        except StageError:
            continue  # a file that cannot be read has no questions to compare with
        yield task.name, chain.from_iterable(map(questions, rows))


def _of_bundle(root: Path) -> Iterator[tuple[str, Iterator[str]]]:
    for task in core_bundle.read_tasks(root):
        if task.file.is_file():
            yield f"core/{task.label}", chain.from_iterable(map(_of_item, core_bundle.read_items(task)))


def _of_item(item: core_bundle.Item) -> Iterator[str]:
    """What an item of CORE asks: its text, and the question alone if a passage comes before it."""
    for whole in (item.get("query"), item.get("context"), *item.get("context_options", ())):
        if isinstance(whole, str):
            asked = whole.rpartition("Question:")[2].partition("\nAnswer:")[0]
            yield from {text for text in (bare(whole), bare(asked)) if len(text) >= LEAST}


def questions(conversation: Conversation) -> Iterator[str]:
    """What the user asks, without case and marks; of a multiple choice also the question without its choices."""
    for message in conversation["messages"]:
        if message["role"] != "user" or not isinstance(message["content"], str):
            continue
        whole = message["content"]
        stem = bare(whole.partition(CHOICES)[0]).removeprefix(CHOICE)
        yield from {text for text in (bare(whole), stem) if len(text) >= LEAST}
