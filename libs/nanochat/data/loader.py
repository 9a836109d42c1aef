"""What a training loop draws batches from: text, packed conversations, or one conversation a row.

All three are infinite, resume exactly, and share one interface: `next_batch()` gives inputs and targets, both (B, T) int64 on
the CPU with -1 for targets that do not count; `state()` is the JSON-able position after the batches handed out so far.
A state belongs to one rank of one world size: save every rank's, and give each its own.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch import Tensor

from nanochat.contract import StageError
from nanochat.data.packing import TokenQueue, pad_rows, shift
from nanochat.data.shards import documents
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer

CHUNK = 128  # documents encoded at a time
GROUPS_PER_RANK = 4  # fewer row groups than this for each rank, and ranks share out documents instead

State = dict[str, Any]


class TextLoader:
    """Documents, each after a `<|bos|>`, as one token stream cut into rows.

    Every batch takes B*T + 1 tokens and the next one starts after them. Ranks take row groups in turn, over all files; in a
    small corpus they take documents in turn. The first epoch is in file order; `seed` shuffles the row groups of later ones.
    """

    def __init__(
        self,
        files: Sequence[Path],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        seq_len: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len = tokenizer, batch_size, seq_len
        self._rank, self._world_size, self._seed = rank, world_size, seed
        counts = [(path, pq.ParquetFile(path).num_row_groups) for path in files]
        self._groups = [(path, g) for path, count in counts for g in range(count)]
        self.row_groups = len(self._groups)
        self._by_document = self.row_groups < GROUPS_PER_RANK * world_size
        self._identity = {
            "loader": "text",
            "rank": rank,
            "world_size": world_size,
            "seed": seed,
            "data": _digest([(path.name, path.stat().st_size, count) for path, count in counts]),
        }
        self._queue: TokenQueue[tuple[int, int, int]] = TokenQueue()
        self._next = (0, 0, 0)  # epoch, position in this rank's order, chunk
        self._skip = 0
        self._ordered: tuple[int, list[tuple[Path, int]]] = (-1, [])
        self._cached: tuple[tuple[int, int], list[str]] | None = None
        self._idle = 0  # row groups read in a row without finding a document
        if state is not None:
            _check_state(state, self._identity)
            self._next = (state["epoch"], state["position"], state["chunk"])
            self._skip = state["offset"]

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """(inputs, targets). Raises StageError when the files hold no document for this rank."""
        count = self._batch_size * self._seq_len + 1
        while len(self._queue) < count:
            self._read_chunk()
        return shift(self._queue.pop(count), self._batch_size, self._seq_len)

    def state(self) -> State:
        place, offset = self._queue.head() or (self._next, self._skip)
        return {**self._identity, **dict(zip(("epoch", "position", "chunk"), place, strict=True)), "offset": offset}

    def _read_chunk(self) -> None:
        epoch, position, chunk = place = self._next
        order = self._order(epoch)
        if not order:
            raise self._empty()
        texts = self._documents(epoch, position)
        start = chunk * CHUNK
        if start < len(texts):
            tokens = self._tokenizer.encode_documents(texts[start : start + CHUNK], self._threads)
            self._queue.push(place, tokens, self._skip)
            self._skip = self._idle = 0
        elif not texts:
            self._idle += 1
            if self._idle > 2 * len(order):
                raise self._empty()
        if start + CHUNK < len(texts):
            self._next = (epoch, position, chunk + 1)
        else:
            self._next = (epoch, position + 1, 0) if position + 1 < len(order) else (epoch + 1, 0, 0)

    def _order(self, epoch: int) -> list[tuple[Path, int]]:
        if epoch != self._ordered[0]:
            groups = self._groups
            if epoch:
                groups = random.Random(f"{self._seed}/{epoch}").sample(groups, len(groups))
            self._ordered = (epoch, groups if self._by_document else groups[self._rank :: self._world_size])
        return self._ordered[1]

    def _documents(self, epoch: int, position: int) -> list[str]:
        if self._cached is None or self._cached[0] != (epoch, position):
            path, group = self._order(epoch)[position]
            texts = documents(path, group)
            if self._by_document:
                texts = texts[self._rank :: self._world_size]
            self._cached = ((epoch, position), [t for t in texts if t])
        return self._cached[1]

    @property
    def _threads(self) -> int:
        return max(1, min(4, (os.cpu_count() or 1) // self._world_size))

    def _empty(self) -> StageError:
        return StageError(
            f"the shards hold no document for rank {self._rank} of {self._world_size}",
            code="empty_corpus",
            hint="use more text or fewer ranks",
        )


class ConversationLoader:
    """Rendered conversations as one token stream cut into rows; every token is trained, as in the speedrun's midtraining.

    Rank r takes conversations r, r + W, ..., round and round. A conversation is cut to `seq_len` tokens.
    """

    def __init__(
        self,
        mixture: Sequence[Conversation],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        seq_len: int,
        rank: int = 0,
        world_size: int = 1,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len = tokenizer, batch_size, seq_len
        self._turn = _Turn(mixture, "packed", rank, world_size, state)
        self._queue: TokenQueue[int] = TokenQueue()
        self._skip: int = state["offset"] if state is not None else 0

    def __len__(self) -> int:
        """Conversations in one pass, of all ranks together."""
        return self._turn.rows

    def epoch_progress(self) -> float:
        """Passes handed out so far: 0.5 is half of the first, 1.0 all of it."""
        return self._turn.progress(self._place()[0])

    def next_batch(self) -> tuple[Tensor, Tensor]:
        count = self._batch_size * self._seq_len + 1
        while len(self._queue) < count:
            place, conversation = self._turn.take()
            ids, _ = self._tokenizer.render(conversation, self._seq_len)
            self._queue.push(place, np.array(ids, dtype=np.uint32), self._skip)
            self._skip = 0
        return shift(self._queue.pop(count), self._batch_size, self._seq_len)

    def state(self) -> State:
        place, offset = self._place()
        return {**self._turn.identity, "position": place, "offset": offset}

    def _place(self) -> tuple[int, int]:
        return self._queue.head() or (self._turn.position, self._skip)


class SftLoader:
    """One conversation a row, padded to the longest of its batch with `<|assistant_end|>`; only the assistant's words count.

    A conversation is cut to `seq_len` + 1 tokens. One in which nothing is left to learn is passed over, so that no batch is
    all padding, whose mean loss would not be a number.
    """

    def __init__(
        self,
        mixture: Sequence[Conversation],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        seq_len: int,
        rank: int = 0,
        world_size: int = 1,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len = tokenizer, batch_size, seq_len
        self._turn = _Turn(mixture, "rows", rank, world_size, state)
        self._pad = tokenizer.special("<|assistant_end|>")

    def __len__(self) -> int:
        """Conversations in one pass, of all ranks together."""
        return self._turn.rows

    def epoch_progress(self) -> float:
        """Passes handed out so far: 0.5 is half of the first, 1.0 all of it."""
        return self._turn.progress(self._turn.position)

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """(inputs, targets), (B, T) with T <= `seq_len`. Raises StageError when no conversation has anything to learn."""
        rows: list[tuple[list[int], list[int]]] = []
        passed_over = 0
        while len(rows) < self._batch_size:
            _, conversation = self._turn.take()
            ids, mask = self._tokenizer.render(conversation, self._seq_len + 1)
            if any(mask):
                rows.append((ids, mask))
                passed_over = 0
            else:
                passed_over += 1
                if passed_over > self._turn.rows:
                    raise StageError(
                        f"in none of the {self._turn.rows} conversations does an answer begin within {self._seq_len} tokens",
                        code="nothing_to_learn",
                        hint="raise model.seq_len or use a mixture with shorter questions",
                    )
        return pad_rows(rows, self._pad)

    def state(self) -> State:
        return {**self._turn.identity, "position": self._turn.position}


class _Turn:
    """Which conversation comes next on this rank: r, r + W, r + 2W, ... modulo the number of rows, for ever."""

    def __init__(self, mixture: Sequence[Conversation], kind: str, rank: int, world_size: int, state: State | None):
        self.rows = len(mixture)
        if not self.rows:
            raise StageError("the mixture holds no conversation", code="empty_mixture", hint="check its tasks and limits")
        self._mixture, self._rank, self._world_size = mixture, rank, world_size
        self.identity = {"loader": kind, "rank": rank, "world_size": world_size, "data": _digest([self.rows])}
        if state is not None:
            _check_state(state, self.identity)
        self.position: int = state["position"] if state is not None else 0

    def take(self) -> tuple[int, Conversation]:
        place = self.position
        self.position += 1
        return place, self._mixture[(self._rank + place * self._world_size) % self.rows]

    def progress(self, position: int) -> float:
        return position * self._world_size / self.rows


def _digest(data: Any) -> str:
    return hashlib.blake2b(repr(data).encode(), digest_size=8).hexdigest()


def _check_state(state: State, identity: State) -> None:
    """Raises StageError when a state is another rank's, another world size's or another data set's."""
    for key, here in identity.items():
        if state.get(key) != here:
            raise StageError(
                f"the loader's saved position has {key} {state.get(key)!r}; here it is {here!r}",
                code="resume_mismatch",
                hint="resume with the same shards, seed and number of processes, each rank from its own state",
            )
