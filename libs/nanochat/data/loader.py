"""What a training loop draws batches from: text, packed conversations, or one conversation a row.

All three are infinite, resume exactly, and share one interface: `next_batch()` gives inputs and targets, both (B, T) int64 on
the CPU with -1 for targets that do not count; `state()` is the JSON-able position after the batches handed out so far.
A state belongs to one rank of one world size: save every rank's, and give each its own. `bos_aligned.py` has the fourth: text
in rows that each start a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from nanochat.contract.contract import StageError
from nanochat.data.documents import Documents, Place
from nanochat.data.packing import TokenQueue, pad_rows, shift
from nanochat.data.position import State, check_state, digest
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer


class TextLoader:
    """Documents, each after a `<|bos|>`, as one token stream cut into rows, as in the speedrun.

    Every batch takes B*T + 1 tokens and the next one starts after them. `documents.py` says which documents come when.
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
        shuffle: bool = False,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len = tokenizer, batch_size, seq_len
        self.documents = Documents(files, rank=rank, world_size=world_size, seed=seed, shuffle=shuffle)
        self._identity = {"loader": "text", **self.documents.identity}
        self._queue: TokenQueue[Place] = TokenQueue()
        self._next, self._skip = Place(0, 0, 0), 0
        if state is not None:
            check_state(state, self._identity)
            self._next, self._skip = Place(state["epoch"], state["position"], state["chunk"]), state["offset"]

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """(inputs, targets). Raises StageError when the files hold no document for this rank."""
        count = self._batch_size * self._seq_len + 1
        while len(self._queue) < count:
            place = self._next
            texts, self._next = self.documents.read(place)
            if texts:
                self._queue.push(place, self._tokenizer.encode_documents(texts, self.documents.threads), self._skip)
                self._skip = 0
        return shift(self._queue.pop(count), self._batch_size, self._seq_len)

    def state(self) -> State:
        place, offset = self._queue.head() or (self._next, self._skip)
        return {**self._identity, **place._asdict(), "offset": offset}


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
        self.identity = {"loader": kind, "rank": rank, "world_size": world_size, "data": digest([self.rows])}
        if state is not None:
            check_state(state, self.identity)
        self.position: int = state["position"] if state is not None else 0

    def take(self) -> tuple[int, Conversation]:
        place = self.position
        self.position += 1
        return place, self._mixture[(self._rank + place * self._world_size) % self.rows]

    def progress(self, position: int) -> float:
        return position * self._world_size / self.rows
