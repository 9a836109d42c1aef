"""A user's file of conversations: JSON lines, a JSON array, or parquet. Rows are decoded one at a time and named by their line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.contract.contract import StageError
from nanochat.contract.paths import path_of
from nanochat.tasks.base import Conversation
from nanochat.tasks.formats import EXPECTED, Form, NotAConversation, conversation_of

NAMED = 5  # broken lines that a message names
UNTAUGHT = "every answer has the weight 0, so SFT has nothing to learn"
# How compressed files begin, by the name of what opens them.
COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "unzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class ChatFile:
    """`unit` is what a place counts: lines of JSON lines, rows of other files; both from 1. Blank lines hold no row."""

    path: Path
    unit: str
    _rows: Sequence[Any]
    _places: Sequence[int]

    @classmethod
    def open(cls, path: Path, rows: int | None = None) -> ChatFile:
        """All rows of the file, of lines the first `rows`. Raises StageError when the file is missing or cannot be read."""
        if not path.is_file():
            raise StageError(f"no file {path}", code="task_data_missing", hint="check the path of the file of conversations")
        try:
            if strange := _strange(path):
                raise StageError(f"{path} {strange[0]}", code="task_data_unreadable", hint=strange[1])
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                return cls(path, "row", _Table(table), range(1, table.num_rows + 1))
            if path.suffix == ".json":
                array = _array(path)
                return cls(path, "row", array, range(1, len(array) + 1))
            lines = list(islice(_lines(path), rows))
        except (OSError, pa.ArrowException) as err:
            raise StageError(f"cannot read {path}: {err}", code="task_data_unreadable", hint="replace the file") from err
        return cls(path, "line", [line for _, line in lines], [number for number, _ in lines])

    def __len__(self) -> int:
        return len(self._rows)

    def place(self, index: int) -> int:
        """The line, or the row, of a conversation."""
        return self._places[index]

    def conversation(self, index: int) -> tuple[Form, Conversation]:
        """The form and the conversation of a row. Raises NotAConversation."""
        row = self._rows[index]
        return conversation_of(_decoded(row) if isinstance(row, bytes) else row)

    def problems(self, rows: int | None = None) -> Iterator[tuple[int, str]]:
        """(place, what is wrong) of every row, or every one of the first `rows`, that is no conversation."""
        for index in range(min(len(self), rows or len(self))):
            try:
                self.conversation(index)
            except NotAConversation as err:
                yield self.place(index), str(err)


def open_checked(path: Path, rows: int | None = None) -> ChatFile:
    """A user's file, of which every row (or the first `rows`) is a conversation. Raises StageError that names the broken lines."""
    file = ChatFile.open(path, rows)
    if not len(file):
        raise StageError(f"{path} holds no conversation", code="empty_mixture", hint="add conversations, or leave the file out")
    broken = list(file.problems(rows))
    if broken:
        looked_at = min(len(file), rows or len(file))
        named = "; ".join(f"{file.unit} {place}: {problem}" for place, problem in broken[:NAMED])
        more = f"; and {len(broken) - NAMED:,} more" if len(broken) > NAMED else ""
        raise StageError(
            f"{path}: {len(broken):,} of {looked_at:,} rows are no conversation: {named}{more}",
            code="bad_conversation",
            hint=f"`nanochat data check {path}` lists them all; {EXPECTED}",
        )
    return file


def teaches(conversation: Conversation) -> bool:
    """Whether SFT learns one of its answers."""
    return any(turn["role"] == "assistant" and turn.get("weight") != 0 for turn in conversation["messages"])


def own_path(place: str, root: Path | None) -> Path:
    """Where the file of a recipe is: relative to the folder of task data, if there is one, else to the current folder."""
    return (root or Path()) / path_of(place)


class _Table(Sequence[Any]):
    """The rows of a table as Python objects, made when they are asked for."""

    def __init__(self, table: pa.Table):
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: Any) -> Any:
        return self._table.slice(index, 1).to_pylist()[0]


def _decoded(line: bytes) -> Any:
    try:
        return json.loads(line.decode())  # of bytes, json would guess among UTF-8, UTF-16 and UTF-32, line by line
    except UnicodeDecodeError as err:
        raise NotAConversation(f"it is not UTF-8: byte {err.object[err.start]:#04x} at position {err.start + 1}") from None
    except RecursionError:
        raise NotAConversation("it is nested too deeply") from None
    except ValueError as err:
        array = line.strip() in (b"[", b"{")
        hint = "; the file is one JSON text over many lines: name it .json if it is a list of conversations" if array else ""
        raise NotAConversation(f"it is not JSON ({err}){hint}") from None


def _strange(path: Path) -> tuple[str, str] | None:
    """What a file is in place of UTF-8 text or parquet, by its first bytes, and what to do."""
    with path.open("rb") as file:
        first = file.read(8)
    for begin, tool in COMPRESSED.items():
        if first.startswith(begin):
            return f"is compressed ({tool})", f"decompress it with {tool}, and name the file that comes out"
    return ("is UTF-16 text", "save it as UTF-8") if first.startswith(UTF16) else None


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of every line that is not blank."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            text = line.strip() if number > 1 else line.removeprefix(codecs.BOM_UTF8).strip()
            if text:
                yield number, text


def _array(path: Path) -> list[Any]:
    hint = "a .json file holds one list of conversations; a file with one of them on each line is named .jsonl"
    try:
        rows = json.loads(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as err:
        raise StageError(f"{path} is not JSON: {err}", code="bad_conversation", hint=hint) from err
    if not isinstance(rows, list):
        raise StageError(f"{path} is no list of conversations", code="bad_conversation", hint=hint)
    return rows
