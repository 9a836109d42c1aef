"""A user's file of conversations: its kinds, its lines, and the names of those that are broken."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from nanochat.contract.contract import StageError
from nanochat.tasks.chat_file import ChatFile, open_checked
from nanochat.tasks.registry import load, named
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import TaskUse

CHATS: list[Any] = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    {"messages": [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "ho"}]},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"instruction": "c", "output": "d"},
]
FORMS = ["messages", "messages", "sharegpt", "alpaca"]


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(CHATS)),
        ("a.jsonl", b"\xef\xbb\xbf" + lines(CHATS).replace(b"\n", b"\r\n")),
        ("a.jsonl", b"\n" + lines(CHATS).replace(b"\n", b"\n \n")),
        ("a.txt", lines(CHATS).rstrip()),
        ("a.json", json.dumps(CHATS, indent=2).encode()),
    ],
)
def test_every_kind_of_file_holds_the_same_conversations(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    file = open_checked(tmp_path / name)
    assert [file.conversation(i)[0] for i in range(len(file))] == FORMS
    asked = [conversation["messages"][0]["content"] for conversation in named_rows(tmp_path / name)]
    assert asked == ["hi", "Grüße", "a", "c"]


def named_rows(path: Path, limit: int | None = None) -> list[Any]:
    return named("jsonl", "train", TaskSource(), path=str(path), limit=limit)[:]


def test_parquet_is_read_too(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"instruction": "c", "output": "d"}] * 3), tmp_path / "a.parquet")
    assert len(named_rows(tmp_path / "a.parquet")) == 3
    assert len(named_rows(tmp_path / "a.parquet", limit=2)) == 2


BROKEN: dict[bytes, str] = {
    b"{": "it is not JSON",
    b'{"instruction": "x", "output": "\xff"}': "it is not UTF-8: byte 0xff at position 33",
    b"[" * 100_000: "it is nested too deeply",
    b"3": "it is no list of messages",
    b'{"a": 1}': "it is no list of messages",
    b'{"instruction": "x", "output": "\\ud800"}': "half a character",
}


@pytest.mark.parametrize("line", BROKEN, ids=BROKEN.values())
def test_a_broken_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b"\n" + lines(CHATS) + line + b"\n")
    assert [place for place, _ in ChatFile.open(path).problems()] == [6]
    with pytest.raises(StageError) as err:
        named_rows(path)
    assert err.value.code == "bad_conversation"
    assert str(err.value).startswith(f"{path}: 1 of 5 rows are no conversation: line 6: ")
    assert BROKEN[line] in str(err.value)


def test_many_broken_lines_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(lines(CHATS) + b"{\n" * 12)
    with pytest.raises(StageError, match=r"12 of 16 rows .* line 5: .* line 9: .*; and 7 more"):
        open_checked(path)
    assert len(open_checked(path, rows=4)) == 4  # a check of the beginning neither sees nor reads them


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b"", "holds no conversation"),
        ("a.jsonl", b"\n \n", "holds no conversation"),
        ("a.json", b"[]", "holds no conversation"),
        ("a.json", lines(CHATS), "is not JSON"),
        ("a.json", b'{"messages": []}', "is no list of conversations"),
        ("a.jsonl", json.dumps(CHATS, indent=1).encode(), "name it .json"),
        ("a.parquet", b"PAR1", "cannot read"),
        ("a.jsonl", gzip.compress(lines(CHATS), mtime=0), "is compressed"),
        ("a.parquet", gzip.compress(b"PAR1", mtime=0), "is compressed"),
        ("a.jsonl", b"\x28\xb5\x2f\xfd\x00", "is compressed"),
        ("a.jsonl", lines(CHATS[:1]).decode().strip().encode("utf-16"), "is UTF-16 text"),
        ("a.json", json.dumps(CHATS).encode("utf-16"), "is UTF-16 text"),
        ("a.jsonl", lines(CHATS[:1]).decode().strip().encode("utf-16-le"), "no conversation"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=problem):
        open_checked(tmp_path / name)
    with pytest.raises(StageError, match="no file"):
        open_checked(tmp_path / "none.jsonl")


def test_the_short_form_of_a_file_in_a_mixture(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(CHATS))
    use = TaskUse.model_validate({"jsonl": str(tmp_path / "a.jsonl"), "epochs": 3})
    assert use == TaskUse(task="jsonl", path=str(tmp_path / "a.jsonl"), repeat=3)
    assert len(load(use, TaskSource())) == 4
    for wrong in ({"jsonl": "a", "path": "b"}, {"task": "jsonl", "path": "a", "repeat": 1, "epochs": 1}, {"epochs": 2}):
        with pytest.raises(ValidationError):
            TaskUse.model_validate(wrong)


def test_a_url_is_read_from_where_the_data_stage_has_put_it(tmp_path: Path) -> None:
    url = "https://example.org/chats.jsonl"
    (tmp_path / "fetched.jsonl").write_bytes(lines(CHATS))
    use = TaskUse(task="jsonl", path=url)
    assert len(load(use, TaskSource({url: (tmp_path / "fetched.jsonl",)}))) == 4
    with pytest.raises(StageError, match="was not fetched"):
        load(use, TaskSource())
