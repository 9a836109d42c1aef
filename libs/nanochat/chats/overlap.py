"""Which conversations ask a question of an evaluation: training on them would make its figure worthless."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from nanochat.contract.contract import StageError
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
    def of(cls, source: TaskSource) -> Questions:
        """All questions of the judged data sets that the source has."""
        found = cls([])
        for task in TASKS:
            if task.judge is None or f"{task.name}/test" not in source.files:
                continue
            try:
                rows = named(task.name, "test", source)
            except StageError:
                continue  # a file that cannot be read has no questions to compare with
            found.tasks.append(task.name)
            for conversation in rows:
                for text in questions(conversation):
                    found._task_of.setdefault(text, task.name)
        return found

    def asked_in(self, conversation: Conversation) -> str | None:
        """The task that asks the same as one of the user's messages."""
        return next((self._task_of[text] for text in questions(conversation) if text in self._task_of), None)


def questions(conversation: Conversation) -> Iterator[str]:
    """What the user asks, without case and marks; of a multiple choice also the question without its choices."""
    for message in conversation["messages"]:
        if message["role"] != "user" or not isinstance(message["content"], str):
            continue
        whole = message["content"]
        stem = bare(whole.partition(CHOICES)[0]).removeprefix(CHOICE)
        yield from {text for text in (bare(whole), stem) if len(text) >= LEAST}
