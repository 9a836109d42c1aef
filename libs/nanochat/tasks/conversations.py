"""Conversations to train on: SmolTalk, or a user's own file."""

from __future__ import annotations

from typing import Any

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.catalogued import CatalogTask
from nanochat.tasks.chat_file import ChatFile
from nanochat.tasks.dataset import DatasetTask
from nanochat.tasks.formats import EXPECTED, NotAConversation, conversation_of

QUOTED = 200  # characters of a broken row


class Conversations(DatasetTask):
    """Rows of a folder or a hub, in the forms of `formats`. Raises StageError that quotes a row that is no conversation."""

    def from_row(self, row: Any) -> Conversation:
        try:
            return conversation_of(row)[1]
        except NotAConversation as err:
            raise StageError(
                f"a row of {self.name} is no conversation: {err}: {str(row)[:QUOTED]}", code="bad_conversation", hint=EXPECTED
            ) from None


class OwnConversations(CatalogTask):
    """The conversations of a user's file, in the file's order."""

    def __init__(self, definition: TaskDef, file: ChatFile, limit: int | None = None):
        super().__init__(definition)
        self._file, self._rows = file, min(len(file), limit or len(file))

    def __len__(self) -> int:
        return self._rows

    def conversation(self, index: int) -> Conversation:
        return self._file.conversation(index)[1]
