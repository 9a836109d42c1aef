"""Tasks that generate their own rows: the same rows every time, and a test split that training never sees."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Sequence

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.catalogued import CatalogTask
from nanochat.tasks.source import TaskSource

TEST_SHARE = 8  # one problem in eight is for tests
_TRIES = 10_000


class GeneratedTask(CatalogTask):
    """A random generator draws row `i`; its seed is the task's name, the split and `i`.

    Every problem has a key, and the key's digest decides the problem's split. A row is drawn again until its problem belongs
    to this split, so no test problem is ever in training, whatever the sizes.
    """

    def __init__(self, definition: TaskDef, split: str, size: int, source: TaskSource):
        super().__init__(definition)
        self.split, self._size, self.source = split, size, source

    def __len__(self) -> int:
        return self._size

    def conversation(self, index: int) -> Conversation:
        rng = random.Random(f"{self.name}/{self.split}/{index}")
        for _ in range(_TRIES):
            key, conversation = self.draw(rng)
            if self.owns(key):
                return conversation
        raise StageError(
            f"task {self.name} has no problem for split {self.split!r}",
            code="task_too_small",
            hint="use more text: it has few words",
        )

    def owns(self, key: str) -> bool:
        """Whether a problem belongs to this split."""
        digest = hashlib.blake2b(f"{self.name}/{key}".encode(), digest_size=2).digest()
        return (int.from_bytes(digest, "little") % TEST_SHARE == 0) == (self.split == "test")

    @abstractmethod
    def draw(self, rng: random.Random) -> tuple[str, Conversation]:
        """One problem of either split: its key and its conversation."""


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
