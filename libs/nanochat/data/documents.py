"""The documents that one rank reads: an endless sequence of chunks.

Ranks take row groups in turn, over all files; in a small corpus they take documents in turn. The first epoch reads the files
in order, as nanochat's speedrun does, unless `shuffle` is set. Every later epoch shuffles the row groups by the seed. The
order depends on nothing but (files, seed, shuffle, epoch), so three integers are enough to name a place in it.
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
GROUPS_PER_RANK = 4  # with fewer row groups per rank than this, ranks share out documents instead


class Place(NamedTuple):
    """The place of a chunk: `position` counts this rank's row groups in the epoch; `chunk` counts chunks in the row group."""

    epoch: int
    position: int
    chunk: int


class Documents:
    """The documents of one rank. `identity` describes the data and their order; a saved place is valid only for the same one.

    Raises StageError that names the shard which cannot be read.
    """

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
        self._idle = 0  # consecutive chunks without any document

    def read(self, place: Place) -> tuple[list[str], Place]:
        """Return (texts of the chunk at `place`, the next place). Raises StageError when this rank has no document at all."""
        epoch, position, chunk = place
        count = len(self._order(epoch))
        # After a change of the number of ranks, the position may lie past the end of the epoch.
        texts = self.texts(epoch, position) if position < count else []
        found = texts[chunk * CHUNK : (chunk + 1) * CHUNK]
        self._idle = 0 if found else self._idle + 1
        if self._idle > 2 * count:
            raise self._empty()
        if (chunk + 1) * CHUNK < len(texts):
            return found, Place(epoch, position, chunk + 1)
        return found, Place(epoch, position + 1, 0) if position + 1 < count else Place(epoch + 1, 0, 0)

    def texts(self, epoch: int, position: int) -> list[str]:
        """This rank's documents in one row group, without null and empty ones."""
        if self._cached is None or self._cached[0] != (epoch, position):
            texts = [text for text in documents(*self._order(epoch)[position]) if text]
            # Drop empty documents before sharing out: then the same index on every rank means the same progress (resize.py).
            self._cached = ((epoch, position), texts[self._rank :: self._world_size] if self._by_document else texts)
        return self._cached[1]

    @property
    def threads(self) -> int:
        """How many threads should encode documents on this rank."""
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
            hint="use more text or fewer processes",
        )
