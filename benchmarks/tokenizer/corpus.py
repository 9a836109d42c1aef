"""The text of the benchmark: English from the pretraining shards, cut to a number of characters."""

import itertools
import os
import pydoc
import pydoc_data.topics
import random
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data" / "pretrain"))
DOC_CAP = 10_000


def source() -> str:
    """What the text is, for the table's head."""
    return f"English, {DATA}" if _shards() else f"synthetic (no parquet files in {DATA})"


def load(chars: int) -> list[str]:
    """Documents of at most 10,000 characters, up to `chars` in all."""
    documents, total = [], 0
    for document in _documents():
        documents.append(document[:DOC_CAP])
        total += len(documents[-1])
        if total >= chars:
            break
    return documents


def _shards() -> list[Path]:
    """The training shards; the last file is the validation shard."""
    return sorted(DATA.glob("*.parquet"))[:-1]


def _documents() -> Iterator[str]:
    shards = _shards()
    if not shards:
        yield from _synthetic()
    import pyarrow.parquet

    for shard in shards:
        for batch in pyarrow.parquet.ParquetFile(shard).iter_batches(1024, columns=["text"]):
            yield from batch.column(0).to_pylist()


def _synthetic() -> Iterator[str]:
    """Sentences of the language reference, shuffled with new words so that the vocabulary goes on growing."""
    generator = random.Random(0)
    sentences = [line for topic in pydoc_data.topics.topics.values() for line in topic.splitlines() if line.strip()]
    sentences += [line for line in pydoc.__file__ and Path(pydoc.__file__).read_text().splitlines() if line.strip()]
    for _ in itertools.repeat(None):
        lines = generator.choices(sentences, k=60)
        words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(40)]
        yield "\n".join([*lines, " ".join(words)])
