"""The text of the tokenizer and loader benchmarks: documents of a folder of parquet shards, or generated ones."""

from __future__ import annotations

import itertools
import pydoc
import pydoc_data.topics
import random
from collections.abc import Iterator
from pathlib import Path

DATA_HELP = (
    "parquet shards with a column `text`, the last for validation (../shared/data/pretrain if there, else generated text)"
)
DOC_CAP = 10_000  # characters


def source(data: Path | None) -> str:
    """A few words about the text, for the head of a table."""
    return f"English, {data}" if data else "generated"


def load(chars: int, data: Path | None = None) -> list[str]:
    """Documents of at most 10,000 characters, `chars` in all, from the training shards in `data`; generated without it."""
    documents, total = [], 0
    for document in _shard_documents(data) if data else _generated():
        documents.append(document[:DOC_CAP])
        total += len(documents[-1])
        if total >= chars:
            break
    return documents


def _shard_documents(data: Path) -> Iterator[str]:
    import pyarrow.parquet  # not above: a process that measures generated text has no use for it

    for shard in sorted(data.glob("*.parquet"))[:-1]:  # the last one is for validation
        for batch in pyarrow.parquet.ParquetFile(shard).iter_batches(1024, columns=["text"]):
            yield from batch.column(0).to_pylist()


def _generated() -> Iterator[str]:
    """Shuffled sentences of the language reference with invented words among them, so that the vocabulary keeps growing."""
    generator = random.Random(0)
    sentences = [line for topic in pydoc_data.topics.topics.values() for line in topic.splitlines() if line.strip()]
    sentences += [line for line in pydoc.__file__ and Path(pydoc.__file__).read_text().splitlines() if line.strip()]
    for _ in itertools.repeat(None):
        lines = generator.choices(sentences, k=60)
        words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(40)]
        yield "\n".join([*lines, " ".join(words)])
