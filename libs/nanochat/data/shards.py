"""Parquet shards of text: checks, reading, writing, and the index that a run's stages share.

A standard shard has a column `text` of strings; all stages after `data` read nothing else. Imports no torch and no network
client, so that the folder in a recipe can be checked before any work.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nanochat.contract.contract import RESTORE, Exit, StageError, write_json

COLUMN = "text"
INDEX = "shards.json"
ROW_GROUP = 1024  # documents per row group
_TEXT = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of the index. `chars` counts the characters of whole documents, `bytes` the file; None means not counted."""

    path: str
    bytes: int
    sha256: str | None = None
    chars: int | None = None


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """The train shards, in order, and the validation shards, which stay the same for the whole run."""

    train: list[Path]
    val: list[Path]

    @classmethod
    def load(cls, directory: Path) -> ShardIndex:
        """Read `shards.json`. Raises StageError that names a shard which is missing or has changed its size."""
        table = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        return cls(*([_as_named(Shard(**entry)) for entry in table[split]] for split in ("train", "val")))


def write_index(directory: Path, train: Iterable[Shard], val: Iterable[Shard]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / INDEX, {"train": [asdict(s) for s in train], "val": [asdict(s) for s in val]})


def _as_named(shard: Shard) -> Path:
    path = Path(shard.path)
    size = path.stat().st_size if path.is_file() else None
    if size != shard.bytes:
        raise StageError(
            f"shard {path} {'is missing' if size is None else f'has {size} bytes instead of {shard.bytes}'}",
            code="shard_missing" if size is None else "shard_changed",
            hint=RESTORE,
        )
    return path


# -- checks --


def check_shard(path: Path, column: str = COLUMN) -> pq.FileMetaData:
    """Check a shard and return its parquet footer. Raises StageError when it is not parquet or `column` holds no text."""
    with _opened(path) as file:
        _check_column(path, file.schema_arrow, column)
        return file.metadata


def is_standard(path: Path, column: str) -> bool:
    """Whether a checked shard can be read in place, because it holds strings in the column `text`."""
    if column != COLUMN:
        return False
    with _opened(path) as file:
        kind = file.schema_arrow.field(column).type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _opened(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as err:
        raise StageError(
            f"{path} is not a readable parquet file: {err}", code="shard_unreadable", hint="replace or remove the file"
        ) from err


def _check_column(path: Path, schema: pa.Schema, column: str) -> None:
    places = schema.get_all_field_indices(column)
    if not places:
        raise StageError(
            f"{path} has no column {column!r}; its columns are {', '.join(schema.names) or 'none'}",
            code="no_text_column",
            hint="set data.source.column to the one that holds the documents",
        )
    if len(places) > 1:
        raise StageError(
            f"{path} has {len(places)} columns {column!r}", code="no_text_column", hint="rename or remove all but one of them"
        )
    kind = schema.field(places[0]).type
    if not _holds_text(kind):
        raise StageError(
            f"{path}: column {column!r} is {kind}, not text",
            code="no_text_column",
            hint="set data.source.column to a column of strings or of UTF-8 bytes",
        )


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_text(kind) for is_text in _TEXT)


def require_text(train: Iterable[Shard], source: str) -> None:
    """Raises StageError when the shards hold not a single character."""
    if not sum(s.chars or 0 for s in train):
        raise StageError(
            f"{source} holds no text: every document is empty",
            code="empty_corpus",
            hint="check data.source.column",
        )


# -- reading --


def documents(path: Path, row_group: int) -> list[str | None]:
    """Read the texts of one row group, in order.

    Raises StageError that names the shard: as bad input when it is missing, truncated or damaged; as a failure that may pass
    when the operating system reports an error of the disk or the network.
    """
    with _reading(path, f"row group {row_group}"):
        texts: list[str | None] = pq.ParquetFile(path).read_row_group(row_group, columns=[COLUMN]).column(COLUMN).to_pylist()
    return texts


def texts_of(path: Path, column: str = COLUMN, *, rows: int = 8192) -> Iterator[pa.Array]:
    """Read a whole shard as arrays of strings with at most `rows` documents. Raises StageError as `documents` does.

    Bytes that are not UTF-8 are found here: Arrow does not look at them when it reads.
    """
    done = 0
    with _reading(path, lambda: f"the text after row {done}"), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=[column]):
            texts = batch.column(column)  # by name: a column named "text.en" comes along with "text"
            if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
                texts = texts.cast(pa.large_string())
            texts.validate(full=True)
            yield texts
            done += len(texts)


@contextlib.contextmanager
def _reading(path: Path, part: str | Callable[[], str]) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as err:
        raise _unreadable(path, part if isinstance(part, str) else part(), err) from err


def _unreadable(path: Path, part: str, err: Exception) -> StageError:
    if isinstance(err, FileNotFoundError):
        return StageError(f"shard {path} is missing", code="shard_missing", hint=RESTORE)
    return not_read(
        f"{part} of shard {path} cannot be read",
        err,
        "replace the file; remove a downloaded one, and the data stage fetches it again",
    )


def not_read(what: str, err: Exception, mend: str) -> StageError:
    """A failure that may pass when the operating system reports it; else damaged text, which `mend` says how to mend."""
    # Only errors of the operating system have a number. Arrow's own OSErrors, about the content, have none.
    passing = isinstance(err, OSError) and err.errno is not None
    return StageError(
        f"{what}: {' '.join(str(err).split())}",
        code="shard_not_read" if passing else "shard_unreadable",
        hint="check the disk, then resume" if passing else mend,
        exit_code=Exit.FAILED if passing else Exit.BAD_INPUT,
    )


def count_chars(path: Path, doc_cap: int, see: Callable[[pa.Array], None] = lambda _: None) -> tuple[int, int]:
    """Count (all characters, characters with each document cut to `doc_cap`). `see` is called with every array of documents.

    Reads every page, so a damaged shard is found before training. Raises StageError as `documents` does.
    """
    whole = capped = 0
    for texts in texts_of(path):
        lengths = pc.utf8_length(texts)
        whole += pc.sum(lengths).as_py() or 0
        capped += pc.sum(pc.min_element_wise(lengths, doc_cap, skip_nulls=False)).as_py() or 0
        see(texts)
    return whole, capped


def write_shard(path: Path, texts: Sequence[str | None]) -> None:
    """Write texts as a standard shard (see `write_arrays`)."""
    write_arrays(path, [pa.array(texts, pa.string())])


def write_arrays(path: Path, arrays: Iterable[pa.Array]) -> None:
    """Write arrays of texts as a shard like those of FineWeb-Edu: zstd, row groups of at most 1,024 documents, no dictionary,
    no statistics."""
    schema = pa.schema([(COLUMN, pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for array in arrays:
            writer.write_table(pa.table({COLUMN: array.cast(pa.string())}, schema), row_group_size=ROW_GROUP)
