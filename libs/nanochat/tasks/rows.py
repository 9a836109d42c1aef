"""Rows of task data from .jsonl and .parquet files, decoded one at a time, in a fixed shuffled order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nanochat.contract.contract import StageError

SHUFFLE_SEED = 42  # gives the same permutation as `shuffle(seed=42)` of the hub's `datasets` library


class Rows:
    """`rows[i]` is row `i` of the shuffled files, decoded into Python objects."""

    def __init__(self, parts: Sequence[pa.Table | list[bytes]], order: np.ndarray | range):
        self._parts, self._order = parts, order
        self._ends = np.cumsum([len(p) for p in parts])

    @classmethod
    def read(cls, paths: Iterable[Path], *, shuffled: bool = True) -> Rows:
        """Open the files. Raises StageError naming the first that cannot be read."""
        parts = [_read(p) for p in paths]
        total = sum(len(p) for p in parts)
        return cls(parts, np.random.default_rng(SHUFFLE_SEED).permutation(total) if shuffled else range(total))

    def __len__(self) -> int:
        return len(self._order)

    def first(self, limit: int | None) -> Rows:
        return self if limit is None else Rows(self._parts, self._order[:limit])

    def __getitem__(self, index: int) -> Any:
        row = int(self._order[index])
        part = int(np.searchsorted(self._ends, row, side="right"))
        offset = row - (int(self._ends[part - 1]) if part else 0)
        table = self._parts[part]
        return json.loads(table[offset]) if isinstance(table, list) else table.slice(offset, 1).to_pylist()[0]


def _read(path: Path) -> pa.Table | list[bytes]:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except (OSError, pa.ArrowException) as err:
        raise StageError(f"cannot read {path}: {err}", code="task_data_unreadable", hint="replace the file") from err
