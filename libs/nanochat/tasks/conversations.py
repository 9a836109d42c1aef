"""Conversations to train on: SmolTalk, or a user's own file."""

from __future__ import annotations

from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.catalogued import CatalogTask
from nanochat.tasks.chat_file import ChatFile
from nanochat.tasks.dataset import DatasetTask


class Conversations(DatasetTask):
    """Each row is a list of messages, or an object with `messages`; roles alternate after an optional system message."""

    def from_row(self, row: Any) -> Conversation:
        messages = row if isinstance(row, list) else row["messages"]
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}


class OwnConversations(CatalogTask):
    """The conversations of a user's file, in the file's order."""

    def __init__(self, definition: TaskDef, file: ChatFile, limit: int | None = None):
        super().__init__(definition)
        self._file, self._rows = file, min(len(file), limit or len(file))

    def __len__(self) -> int:
        return self._rows

    def conversation(self, index: int) -> Conversation:
        return self._file.conversation(index)[1]
