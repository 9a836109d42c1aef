"""One rank's documents, a chunk at a time, for ever: which row groups it reads, and in which order.

Ranks take row groups in turn, over all files; in a small corpus they take documents in turn. The first epoch is in file order,
as in the speedrun, unless `shuffle`; every later one shuffles the row groups by the seed. The order is a pure function of
(files, seed, shuffle, epoch), so a place in it is three integers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nanochat.contract.contract import StageError
from nanochat.data.position import State, digest
from nanochat.data.shards import check_shard, documents

CHUNK = 128  # documents encoded at a time
GROUPS_PER_RANK = 4  # fewer row groups than this for each rank, and ranks share out documents instead


class Place(NamedTuple):
    """Of a chunk: `position` counts this rank's row groups of the epoch, `chunk` their documents by `CHUNK`."""

    epoch: int
    position: int
    chunk: int


class Documents:
    """`identity` is what a saved place belongs to. Raises StageError naming the shard that cannot be read."""

    def __init__(self, files: Sequence[Path], *, rank: int, world_size: int, seed: int, shuffle: bool):
        self._rank, self._world_size, self._seed, self._shuffle = rank, world_size, seed, shuffle
        counts = [(path, check_shard(path).num_row_groups) for path in files]
        self._groups = [(path, g) for path, count in counts for g in range(count)]
        self.row_groups = len(self._groups)
        self._by_document = self.row_groups < GROUPS_PER_RANK * world_size
        self.identity: State = {
            "rank": rank,
            "world_size": world_size,
            "seed": seed,
            "shuffle": shuffle,
            "data": digest([(path.name, path.stat().st_size, count) for path, count in counts]),
        }
        self._ordered: tuple[int, list[tuple[Path, int]]] = (-1, [])
        self._cached: tuple[tuple[int, int], list[str]] | None = None
        self._idle = 0  # chunks read in a row without finding a document

    def read(self, place: Place) -> tuple[list[str], Place]:
        """(texts of the chunk at `place`, the next place). Raises StageError when there is no document for this rank."""
        epoch, position, chunk = place
        count = len(self._order(epoch))
        texts = self.texts(epoch, position) if position < count else []  # a resized position may lie past the epoch's end
        found = texts[chunk * CHUNK : (chunk + 1) * CHUNK]
        self._idle = 0 if found else self._idle + 1
        if self._idle > 2 * count:
            raise self._empty()
        if (chunk + 1) * CHUNK < len(texts):
            return found, Place(epoch, position, chunk + 1)
        return found, Place(epoch, position + 1, 0) if position + 1 < count else Place(epoch + 1, 0, 0)

    def texts(self, epoch: int, position: int) -> list[str]:
        """This rank's documents of one row group, without null and empty ones."""
        if self._cached is None or self._cached[0] != (epoch, position):
            texts = [text for text in documents(*self._order(epoch)[position]) if text]
            # Shared out after the empty ones are gone, so that equal indices on all ranks mean equally far (see resize.py).
            self._cached = ((epoch, position), texts[self._rank :: self._world_size] if self._by_document else texts)
        return self._cached[1]

    @property
    def threads(self) -> int:
        """How many to encode with."""
        return max(1, min(4, (os.cpu_count() or 1) // self._world_size))

    def _order(self, epoch: int) -> list[tuple[Path, int]]:
        if epoch != self._ordered[0]:
            groups = self._groups
            if epoch or self._shuffle:
                groups = random.Random(f"{self._seed}/{epoch}").sample(groups, len(groups))
            self._ordered = (epoch, groups if self._by_document else groups[self._rank :: self._world_size])
        return self._ordered[1]

    def _empty(self) -> StageError:
        return StageError(
            f"the shards hold no document for rank {self._rank} of {self._world_size}",
            code="empty_corpus",
            hint="use more text or fewer ranks",
        )
