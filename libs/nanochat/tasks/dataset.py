"""What tasks over a data set have in common: rows, each of which makes a conversation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.rows import Rows


class DatasetTask(Task):
    """A task whose rows come from files."""

    def __init__(self, rows: Rows):
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def conversation(self, index: int) -> Conversation:
        return self.from_row(self._rows[index])

    @abstractmethod
    def from_row(self, row: Any) -> Conversation:
        """The conversation of a row as the data set has it."""
