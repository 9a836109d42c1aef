"""Several tasks as one shuffled sequence of conversations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import overload

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.registry import load
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import TaskUse


class Mixture(Sequence[Conversation]):
    """Every row of every task, as often as the task is listed, in an order that `seed` fixes."""

    def __init__(self, tasks: Sequence[Task], seed: int = 42):
        self.tasks = tasks
        self._order = [(t, i) for t, task in enumerate(tasks) for i in range(len(task))]
        random.Random(seed).shuffle(self._order)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        if isinstance(index, slice):
            return [self.tasks[t][i] for t, i in self._order[index]]
        task, row = self._order[index]
        return self.tasks[task][row]


def load_mixture(uses: Sequence[TaskUse], source: TaskSource, seed: int = 42) -> Mixture:
    """A recipe's mixture. Raises StageError when the data of a task are missing."""
    return Mixture([task for use in uses for task in [load(use, source)] * use.repeat], seed)
