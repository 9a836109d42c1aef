"""Conversations to train on: SmolTalk, or a user's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import TaskDef
from nanochat.tasks.dataset import DatasetTask
from nanochat.tasks.rows import Rows


class Conversations(DatasetTask):
    """Each row is a list of messages, or an object with `messages`; roles alternate after an optional system message."""

    def from_row(self, row: Any) -> Conversation:
        messages = row if isinstance(row, list) else row["messages"]
        return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}


def read_jsonl(definition: TaskDef, path: Path, limit: int | None = None) -> Conversations:
    """A user's file of conversations. Every row is checked; raises StageError naming the first that is no conversation."""
    if not path.is_file():
        raise StageError(f"no file {path}", code="task_data_missing", hint="check the `path` of the task jsonl")
    rows = Rows.read([path], shuffled=False)
    for i in range(len(rows)):
        problem = _problem(rows, i)
        if problem:
            raise StageError(
                f"row {i + 1} of {path} is no conversation: {problem}",
                code="bad_conversation",
                hint='each line is [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}, …]',
            )
    return Conversations(definition, rows.first(limit))


def _problem(rows: Rows, index: int) -> str | None:
    try:
        row = rows[index]
    except ValueError as err:
        return f"not JSON ({err})"
    messages = row.get("messages") if isinstance(row, dict) else row
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        return "not a list of messages"
    if messages and messages[0].get("role") == "system":
        messages = messages[1:]
    if len(messages) < 2:
        return "fewer than two messages"
    for i, message in enumerate(messages):
        if message.get("role") != ("user", "assistant")[i % 2]:
            return f"message {i + 1} is from {message.get('role')!r}; roles alternate, the user first"
        if not isinstance(message.get("content"), str):
            return f"the content of message {i + 1} is not a string"
    return None
