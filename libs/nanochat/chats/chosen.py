"""The conversations that a person names: rows of a file, or of a task as a mixture has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.catalog import BY_NAME
from nanochat.tasks.chat_file import ChatFile
from nanochat.tasks.formats import NotAConversation
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource


def of_file(path: Path, first: int, count: int) -> Iterator[tuple[str, Conversation]]:
    """(place, conversation) of the rows from line (or row) `first` on. Raises StageError naming the line."""
    file = ChatFile.open(path)
    start = next((index for index in range(len(file)) if file.place(index) >= first), None)
    if start is None:
        last = file.place(len(file) - 1) if len(file) else 0
        raise StageError(
            f"{path} has no {file.unit} {first}; its last one is {last}", code="bad_task", hint="choose another --row"
        )
    for index in range(start, min(start + count, len(file))):
        place = f"{file.unit} {file.place(index)}"
        try:
            yield place, file.conversation(index)[1]
        except NotAConversation as err:
            raise StageError(
                f"{path}, {place}, is no conversation: {err}", code="bad_conversation", hint="mend it, or choose another --row"
            ) from None


def of_task(name: str, split: str | None, source: TaskSource, first: int, count: int) -> Iterator[tuple[str, Conversation]]:
    """(place, conversation) of rows of a task. Raises StageError when there is no such task, split or row."""
    split = split or next((s for s in BY_NAME[name].split_names if s != "test"), "test")
    size = first + count - 1 if BY_NAME[name].kind == "generated" else None
    task = named(name, split, source, size=size)
    if first > len(task):
        raise StageError(f"{name}/{split} has {len(task):,} rows, no row {first}", code="bad_task", hint="choose another --row")
    for index in range(first - 1, min(first - 1 + count, len(task))):
        yield f"{split}, row {index + 1}", task[index]
