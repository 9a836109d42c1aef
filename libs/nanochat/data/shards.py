"""Parquet shards of text: checks, the split into train and validation shards, and the index that a run's stages share.

Imports no torch and no network client, so that the folder in a recipe can be checked before any work.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nanochat.contract.contract import RESTORE, Exit, StageError, write_json

COLUMN = "text"
INDEX = "shards.json"
ROW_GROUP = 1024  # documents per row group


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


def check_shard(path: Path) -> pq.FileMetaData:
    """Check a shard and return its parquet footer. Raises StageError when it is not parquet or has no string column `text`."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except (OSError, pa.ArrowException) as err:
        raise StageError(
            f"{path} is not a readable parquet file: {err}", code="shard_unreadable", hint="replace or remove the file"
        ) from err
    if COLUMN not in schema.names:
        raise StageError(
            f"{path} has no column {COLUMN!r}; its columns are {', '.join(schema.names) or 'none'}",
            code="no_text_column",
            hint=f"rename the column that holds the documents to {COLUMN!r}",
        )
    kind = schema.field(COLUMN).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise StageError(f"{path}: column {COLUMN!r} is {kind}, not string", code="no_text_column")
    return file.metadata


def folder_shards(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Return the (train, val) shards of a user's folder, sorted by name. The last file is the validation shard.

    Raises StageError when the folder is missing or has fewer than two parquet files, when a file is not a usable shard, or when
    the train or the validation shards hold no documents.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise StageError(f"no folder {root}", code="folder_missing", hint="set data.source to a folder of parquet files")
    paths = [p.resolve() for p in sorted(root.glob("*.parquet")) if p.is_file()]
    if not paths:
        raise StageError(
            f"folder {root} holds no .parquet file", code="no_shards", hint=f"put parquet files with a {COLUMN!r} column there"
        )
    if len(paths) == 1:
        raise StageError(
            f"folder {root} holds only {paths[0].name}; the last shard is kept for validation, so nothing is left to train on",
            code="no_val_shard",
            hint="split the text into two or more parquet files",
        )
    rows = [check_shard(p).num_rows for p in paths]
    if not sum(rows[:-1]):
        raise StageError(f"the train shards in {root} hold no documents", code="empty_corpus")
    if not rows[-1]:
        raise StageError(f"the validation shard {paths[-1]} holds no documents", code="empty_corpus")
    return paths[:-1], paths[-1:]


def require_text(train: Iterable[Shard], source: str) -> None:
    """Raises StageError when the shards hold not a single character."""
    if not sum(s.chars or 0 for s in train):
        raise StageError(
            f"{source} holds no text: every document is empty",
            code="empty_corpus",
            hint=f"check the column {COLUMN!r} of the shards",
        )


# -- reading --


def documents(path: Path, row_group: int) -> list[str | None]:
    """Read the texts of one row group, in order.

    Raises StageError that names the shard: as bad input when it is missing, truncated or damaged; as a failure that may pass
    when the operating system reports an error of the disk or the network.
    """
    try:
        texts: list[str | None] = pq.ParquetFile(path).read_row_group(row_group, columns=[COLUMN]).column(COLUMN).to_pylist()
    except (OSError, pa.ArrowException, UnicodeDecodeError) as err:
        raise _unreadable(path, row_group, err) from err
    return texts


def _unreadable(path: Path, row_group: int, err: Exception) -> StageError:
    if isinstance(err, FileNotFoundError):
        return StageError(f"shard {path} is missing", code="shard_missing", hint=RESTORE)
    # Only errors of the operating system have a number. Arrow's own OSErrors, about the content, have none.
    passing = isinstance(err, OSError) and err.errno is not None
    why = " ".join(str(err).split())
    return StageError(
        f"row group {row_group} of shard {path} cannot be read: {why}",
        code="shard_not_read" if passing else "shard_unreadable",
        hint="check the disk, then resume" if passing else "rerun the data stage",
        exit_code=Exit.FAILED if passing else Exit.BAD_INPUT,
    )


def count_chars(path: Path, doc_cap: int) -> tuple[int, int]:
    """Count (all characters, characters with each document cut to `doc_cap`)."""
    whole = capped = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=8192, columns=[COLUMN]):
        lengths = pc.utf8_length(batch.column(0))
        whole += pc.sum(lengths).as_py() or 0
        capped += pc.sum(pc.min_element_wise(lengths, doc_cap, skip_nulls=False)).as_py() or 0
    return whole, capped


def write_shard(path: Path, texts: list[str]) -> None:
    """Write texts as a shard like those of FineWeb-Edu: zstd, row groups of 1,024 documents, no dictionary, no statistics."""
    table = pa.table({COLUMN: pa.array(texts, pa.string())})
    pq.write_table(table, path, row_group_size=ROW_GROUP, compression="zstd", use_dictionary=False, write_statistics=False)
