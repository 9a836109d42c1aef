"""Training: a thin layer over the native trainer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rustbpe import _rustbpe
from rustbpe._tokenizer import Tokenizer

if TYPE_CHECKING:
    import pyarrow

Progress = Callable[[int, int], None]

# Rows decoded at a time, about 4 MB of web text: the reader never holds a whole shard.
_BATCH_ROWS = 1024


def train(
    texts: Iterable[str],
    vocab_size: int,
    *,
    pattern: str = _rustbpe.SPLIT_PATTERN,
    num_threads: int = 0,
    progress: Progress | None = None,
) -> Tokenizer:
    """Learn `vocab_size` mergeable tokens from texts: the 256 bytes, and one token per merge.

    Always merges the most frequent pair; of several, the one with the smaller ids (left id
    first, then right id). The result does not depend on `num_threads` (0: one per
    processor). `texts` is consumed once, as a stream, while worker threads count. The
    interpreter lock is free while they count and while merges are learnt.

    Calls `progress(merges done, merges wanted)` about a hundred times.

    Raises ValueError if `vocab_size` is below 256 or larger than the text allows, if the
    text is empty, or if the pattern can match the empty string. Whatever `texts` or
    `progress` raises, KeyboardInterrupt included, is passed on unchanged.

    Counting takes O(characters), merging O(distinct chunk bytes + word visits).
    Source of the algorithm: Sennrich et al. 2016, arXiv:1508.07909.
    """
    tokens = _rustbpe.train_texts(texts, vocab_size, pattern, num_threads, progress)
    return Tokenizer(tokens, pattern=pattern)


def train_parquet(
    paths: Sequence[str | Path],
    vocab_size: int,
    *,
    column: str = "text",
    max_chars: int | None = None,
    doc_cap: int | None = None,
    pattern: str = _rustbpe.SPLIT_PATTERN,
    num_threads: int = 0,
    progress: Progress | None = None,
) -> Tokenizer:
    """`train` on a string column of parquet files, read in the order of `paths`.

    Documents are cut after `doc_cap` characters. Reading stops after the document that
    brings the total to `max_chars`. Null rows are skipped. Text goes from Arrow's memory to
    the worker threads without becoming Python strings.

    Raises what `train` raises, FileNotFoundError for a missing file, and ValueError if a
    file has no such column or the column holds no strings.
    """
    if isinstance(paths, str | Path):
        raise TypeError(f"paths is one path ({paths}); expected a sequence of paths")
    tokens = _rustbpe.train_columns(
        _columns([Path(path) for path in paths], column),
        vocab_size,
        max_chars,
        doc_cap,
        pattern,
        num_threads,
        progress,
    )
    return Tokenizer(tokens, pattern=pattern)


def _columns(paths: Sequence[Path], column: str) -> Iterator[tuple[memoryview, memoryview, int, int]]:
    """Offsets, data, first row and number of rows of each string array in the files."""
    import pyarrow
    import pyarrow.parquet

    for path in paths:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if column not in names:
                raise ValueError(f"{path} has no column {column!r}, only {names}")
            for batch in file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False):
                array = _strings(batch.column(column), column, path)
                _, offsets, data = array.buffers()
                if len(array) and data is not None:
                    yield _bytes(offsets), _bytes(data), array.offset, len(array)


def _strings(array: "pyarrow.Array", column: str, path: Path) -> "pyarrow.StringArray":
    import pyarrow

    kind = array.type
    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
        raise ValueError(f"column {column!r} of {path} holds {kind}, not strings")
    if array.null_count:
        array = array.drop_null()
    return array if pyarrow.types.is_string(array.type) else array.cast(pyarrow.string())


def _bytes(buffer: "pyarrow.Buffer") -> memoryview:
    """The buffer as unsigned bytes, which the trainer takes; Arrow exports signed ones."""
    return memoryview(buffer).cast("B")
