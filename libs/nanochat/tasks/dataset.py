"""Tasks over a data set: each row of its files makes one conversation."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.catalogued import CatalogTask
from nanochat.tasks.rows import Rows


class DatasetTask(CatalogTask):
    """A task whose rows come from files."""

    def __init__(self, definition: TaskDef, rows: Rows):
        super().__init__(definition)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def conversation(self, index: int) -> Conversation:
        return self.from_row(self._rows[index])

    @abstractmethod
    def from_row(self, row: Any) -> Conversation:
        """The conversation of one row of the data set."""
