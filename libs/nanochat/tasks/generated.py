"""Tasks that make their own rows, the same ones every time, with a test split that training never sees."""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import Sequence

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation, Task

TEST_SHARE = 8  # one problem in eight is for tests
_TRIES = 10_000


class GeneratedTask(Task):
    """Row `i` is drawn by a generator seeded with the task, the split and `i`.

    Every problem has a key, and the key's digest says which split it belongs to: a row is drawn again until it belongs to
    this one. So no test problem is ever in training, whatever the sizes.
    """

    def __init__(self, split: str, size: int):
        self.split, self._size = split, size

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
        """(key, conversation) of a problem of either split."""


def draw_word(rng: random.Random, words: Sequence[str]) -> str:
    """A word from a list by falling frequency; half of all draws come from its first quarter."""
    return words[int(len(words) * rng.random() ** 2)]


def quoted(rng: random.Random, text: str) -> str:
    """In quotes half of the time: there a word is the same tokens as at the start of an answer, which makes it easy to copy."""
    return f'"{text}"' if rng.random() < 0.5 else text


def casually(rng: random.Random, question: str) -> str:
    """As people type: three in ten in lower case, three in ten without the mark at the end."""
    if rng.random() < 0.3:
        question = question.lower()
    return question.rstrip("?. ") if rng.random() < 0.3 else question
