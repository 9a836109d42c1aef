"""How much of the validation text is trained on as well, found while the train shards are counted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from nanochat.data.shards import texts_of

SAMPLE = 1024  # documents of the validation text that are looked for
WORTH_A_WARNING = 0.05  # of them; web text repeats a few documents anyway


@dataclass
class Overlap:
    """`see` takes the documents of the train shards from any thread. `val` makes the validation shard ready and returns it."""

    val: Callable[[], Path]
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _sample: pa.Array | None = None
    _seen: set[int] = field(default_factory=set)

    def see(self, texts: pa.Array) -> None:
        sample = self._documents()
        found = pc.index_in(texts.cast(sample.type), value_set=sample).drop_null()
        if len(found):
            with self._lock:
                self._seen.update(pc.unique(found).to_pylist())

    @property
    def share(self) -> float:
        """The share of the sample that was seen."""
        return len(self._seen) / max(1, len(self._documents()))

    def _documents(self) -> pa.Array:
        with self._lock:
            if self._sample is None:
                first = next(texts_of(self.val(), rows=SAMPLE), pa.array([], pa.string()))
                texts = pc.unique(first.drop_null()).cast(pa.large_string())
                self._sample = texts.filter(pc.greater(pc.utf8_length(texts), 0))
            return self._sample
