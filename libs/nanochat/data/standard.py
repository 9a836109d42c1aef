"""Rewrites a user's text as standard shards in the cache: other columns and types of parquet, .jsonl and .txt, compressed or not.

Every stage after `data` then reads one form. Standard shards stay where they are.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from nanochat.contract.contract import StageError
from nanochat.data.fetch import Stopped
from nanochat.data.folder import Form, Part, named
from nanochat.data.shards import ROW_GROUP, not_read, texts_of, write_arrays

VERSION = 1  # part of the cache key: raise it when the rewriting changes
HELD_OUT = 20  # one document in twenty, the last ones
PASSAGE = (4_000, 8_000)  # characters after which .txt is cut at a blank line, and at any line: less than `tokenizer.doc_cap`
LONGEST_LINE = 1 << 28  # bytes of one line of .jsonl
_END_OF_TEXT = "<|endoftext|>"  # a line of its own, or the end of one, separates documents in published .txt corpora


def standard_shard(part: Part, cache_dir: Path, stopped: Callable[[], bool] = lambda: False) -> Path:
    """The standard shard that holds `part`, which is made in the cache unless it is one or is there already.

    Raises StageError that names the file and the line that is no text, and `Stopped`.
    """
    if part.is_standard:
        return part.files[0]
    path = _home(part, cache_dir) / f"{_stem(part)}.parquet"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        write_arrays(tmp, _until(stopped, _share(part)))
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    return path


def _home(part: Part, cache_dir: Path) -> Path:
    found = [(str(p), s.st_size, s.st_mtime_ns) for p, s in ((p, p.stat()) for p in part.files)]
    return (
        cache_dir / "text" / hashlib.blake2b(repr((VERSION, part.form, part.column, found)).encode(), digest_size=8).hexdigest()
    )


def _stem(part: Part) -> str:
    first = part.files[0]
    name = first.name.partition(".")[0] if len(part.files) == 1 else first.parent.name
    return {"all": name, "first": f"{name}-train", "last": f"{name}-validation"}[part.share]


def _until(stopped: Callable[[], bool], arrays: Iterator[pa.Array]) -> Iterator[pa.Array]:
    for array in arrays:
        if stopped():
            raise Stopped
        yield array


def _share(part: Part) -> Iterator[pa.Array]:
    if part.share == "all":
        yield from _arrays(part)
        return
    total = sum(len(array) for array in _arrays(part))
    if total < 2:
        raise StageError(
            f"{named(part.files)} holds {total} documents, so nothing is left for validation",
            code="no_val_shard",
            hint="add more text",
        )
    cut = total - max(1, total // HELD_OUT)
    start = 0
    for array in _arrays(part):
        here = max(0, min(len(array), cut - start))
        yield array[:here] if part.share == "first" else array[here:]
        start += len(array)


def _arrays(part: Part) -> Iterator[pa.Array]:
    """The documents as arrays of strings, one row group each."""
    if part.form == "parquet":
        for path in part.files:
            yield from (array.drop_null() for array in texts_of(path, part.column, rows=ROW_GROUP))
        return
    documents = (text for path in part.files for text in READERS[part.form](path, part.column) if text)
    while texts := list(islice(documents, ROW_GROUP)):
        yield pa.array(texts, pa.large_string())


# -- forms --


def _jsonl(path: Path, key: str) -> Iterator[str | None]:
    """The value of `key` of every line that is not blank."""
    with _open(path) as file:
        number = 0
        while line := _read(path, file, number):
            number += 1
            if line.strip():
                yield _value(path, number, line, key)


def _read(path: Path, file: IO[bytes], number: int) -> bytes:
    try:
        line = file.readline(LONGEST_LINE)
    except (OSError, EOFError, pa.ArrowException) as err:
        raise _damaged(path, f"after line {number}", err) from err
    if len(line) == LONGEST_LINE:
        raise _no_text(path, number + 1, f"is longer than {LONGEST_LINE:,} bytes", "give each document a line of its own")
    return line


def _value(path: Path, number: int, line: bytes, key: str) -> str | None:
    try:
        row: Any = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as err:
        raise _no_text(path, number, f"is not UTF-8 ({err.reason})", "convert the file to UTF-8") from err
    except (ValueError, RecursionError) as err:
        raise _no_text(path, number, f"is not JSON ({err})", "mend or remove the line") from err
    if not isinstance(row, dict) or key not in row:
        holds = f"its keys are {', '.join(map(str, row)) or 'none'}" if isinstance(row, dict) else f"it is {type(row).__name__}"
        raise _no_text(path, number, f"has no key {key!r}; {holds}", "set data.source.column to the key of the documents")
    text = row[key]
    if text is None:
        return None
    if not isinstance(text, str):
        raise _no_text(path, number, f"has {type(text).__name__}, not a string, as {key!r}", "mend or remove the line")
    if any("\ud800" <= c <= "\udfff" for c in text if not c.isascii()):
        raise _no_text(path, number, "has half of a surrogate pair (\\ud800 to \\udfff)", "mend or remove the line")
    return text


def _txt(path: Path, _key: str) -> Iterator[str]:
    """The text in passages of about PASSAGE characters, none of them across a `<|endoftext|>`."""
    passage, size = [], 0
    for line in _lines(path):
        head, mark, rest = line.partition(_END_OF_TEXT)
        passage.append(head)
        size += len(head)
        blank = not line.strip()
        if mark or (blank and size >= PASSAGE[0]) or size >= PASSAGE[1]:
            yield "".join(passage)
            passage, size = [rest], len(rest)
    yield "".join(passage)


def _lines(path: Path) -> Iterator[str]:
    """Lines of at most PASSAGE[1] characters; a longer one comes in pieces."""
    done = 0
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as text:
        try:
            while line := text.readline(PASSAGE[1]):
                done += line.endswith("\n")
                yield line
        except UnicodeDecodeError as err:
            raise _no_text(path, done + 1, f"is not UTF-8 ({err.reason})", "convert the file to UTF-8") from err
        except (OSError, EOFError, pa.ArrowException) as err:
            raise _damaged(path, f"after line {done}", err) from err


READERS: dict[Form, Callable[[Path, str], Iterator[str | None]]] = {"jsonl": _jsonl, "txt": _txt}


def _open(path: Path) -> IO[bytes]:
    """The content of a file as bytes, decompressed by its suffix."""
    try:
        return io.BufferedReader(pa.input_stream(str(path), compression="detect"))
    except (OSError, pa.ArrowException) as err:
        raise _damaged(path, "at its beginning", err) from err


def _no_text(path: Path, number: int, what: str, hint: str) -> StageError:
    return StageError(f"line {number} of {path} {what}", code="shard_unreadable", hint=hint)


def _damaged(path: Path, where: str, err: Exception) -> StageError:
    return not_read(f"{path} cannot be read {where}", err, "replace the file")
