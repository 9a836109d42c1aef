"""A model's answers to the problems of a task, judged in threads as they come."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypedDict

from nanochat.tasks.base import Conversation, Task

EXAMPLES = 4  # problems of a generative task that are kept to be shown


class Example(TypedDict):
    """One problem: the last user message, the first completion, and whether the problem counted as right."""

    prompt: str
    completion: str
    right: bool


@dataclass(frozen=True, slots=True)
class Part:
    """What one rank found: the number of right answers to each of its problems, those that were too long, and a few to be shown.

    `ranked`: the answers were ranked, not generated.
    """

    rights: list[int] = field(default_factory=list)
    skipped: int = 0
    examples: list[Example] = field(default_factory=list)
    ranked: bool = False


class Answers:
    """The answers to one task's problems, and their verdicts as they come."""

    def __init__(self, task: Task):
        self._task = task
        self._texts: dict[int, list[str]] = {}
        self._verdicts: dict[int, Future[list[bool]]] = {}
        self.skipped = 0
        self.problem: Exception | None = None

    def add(self, index: int, texts: list[str], judges: ThreadPoolExecutor) -> None:
        self._texts[index] = texts
        self._verdicts[index] = judges.submit(_judged, self._task, index, texts)

    def part(self) -> Part | Exception:
        """Waits for the verdicts. Returns what the task's own code raised, if it did."""
        if self.problem:
            return self.problem
        try:
            rights = {index: self._verdicts[index].result() for index in sorted(self._verdicts)}
            examples: list[Example] = [
                {"prompt": _question(self._task[index]), "completion": self._texts[index][0], "right": any(rights[index])}
                for index in sorted(rights)[:EXAMPLES]
            ]
        except Exception as err:
            return err
        return Part([sum(right) for right in rights.values()], self.skipped, examples)


def _judged(task: Task, index: int, texts: list[str]) -> list[bool]:
    """The verdict on each answer; equal answers are judged once."""
    conversation = task[index]
    known = {text: verdict(task, conversation, text) for text in dict.fromkeys(texts)}
    return [known[text] for text in texts]


def verdict(task: Task, conversation: Conversation, text: str) -> bool:
    """Whether the task's judge finds the answer right. Raises what it raises, and TypeError when it decides nothing."""
    try:
        found = task.evaluate(conversation, text)
    except SystemExit as err:  # of a user's judge; it must not end the other tasks
        raise RuntimeError(f"its judge called exit({err.code})") from err
    if found not in (True, False):
        raise TypeError(f"its judge returned {found!r}, neither true nor false")
    return bool(found)


def _question(conversation: Conversation) -> str:
    users = [m["content"] for m in conversation["messages"] if m["role"] == "user"]
    return users[-1] if users and isinstance(users[-1], str) else ""
