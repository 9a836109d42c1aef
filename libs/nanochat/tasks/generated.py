"""Tasks that generate their own rows: the same rows every time, and a test split that training never sees."""

from __future__ import annotations

import hashlib
import random
import re
from abc import abstractmethod
from collections.abc import Sequence

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.catalogued import CatalogTask
from nanochat.tasks.source import TaskSource

TEST_SHARE = 8  # one problem in eight is for tests
TRIES = 10_000


class GeneratedTask(CatalogTask):
    """A random generator draws row `i`; its seed is the task's name, the split and `i`.

    Every problem has a key: what is asked for, whatever the wording. Its digest decides the problem's split. A row is drawn again
    until its problem belongs to this split, so nothing that a test asks for is ever asked for in training, whatever the sizes. The
    key of all tasks about a word is the word: what one of them tests, no other one trains.
    """

    remedy = "more text: it has few words"  # when no problem is left for a split

    def __init__(self, definition: TaskDef, split: str, size: int, source: TaskSource):
        super().__init__(definition)
        self.split, self._size, self.source = split, size, source

    def __len__(self) -> int:
        return self._size

    def conversation(self, index: int) -> Conversation:
        rng = random.Random(self.seed(index))
        for _ in range(TRIES):
            key, conversation = self.draw(rng)
            if self.owns(key):
                return conversation
        raise StageError(
            f"task {self.name} has no problem for split {self.split!r}", code="task_too_small", hint=f"use {self.remedy}"
        )

    def seed(self, index: int) -> int | str:
        """Of all that is drawn for a row."""
        return f"{self.name}/{self.split}/{index}"

    def owns(self, key: str) -> bool:
        """Whether a problem belongs to this split."""
        return (digest_of(key) % TEST_SHARE == 0) == (self.split == "test")

    @abstractmethod
    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        """One problem of either split: its key and its conversation."""


def digest_of(key: str) -> int:
    """A number that looks random and is always the same."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def bare(question: str) -> str:
    """What a question says without case, marks and white space, in which a test question must not differ from a trained one."""
    return re.sub(r"[\W_]+", " ", question.casefold()).strip()


def draw_word(rng: random.Random, words: Sequence[str]) -> str:
    """A word from a list in order of falling frequency; half of all draws come from the list's first quarter."""
    return words[int(len(words) * rng.random() ** 2)]


def quoted(rng: random.Random, text: str) -> str:
    """Quoted half of the time. A quoted word has the same tokens as at the start of an answer, which makes it easy to copy."""
    return f'"{text}"' if rng.random() < 0.5 else text


def casually(rng: random.Random, question: str) -> str:
    """As people type: 30 % of questions in lower case, 30 % without the question mark or full stop."""
    if rng.random() < 0.3:
        question = question.lower()
    return question.rstrip("?. ") if rng.random() < 0.3 else question
