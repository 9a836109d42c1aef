"""Loaders that yield batches for training: a stream of text, packed conversations, or one conversation per row.

All three are infinite, resume exactly, and share one interface. `next_batch()` returns inputs and targets, both (B, T) int64 on
the CPU; a target of -1 does not count in the loss. `state()` returns the position after the batches returned so far, as JSON.
A state belongs to one rank of one world size: save the state of every rank, and give each rank its own. Two more loaders pack by
best fit: `bos_aligned.py` text in rows that each start a document, `best_fit.py` whole conversations.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from nanochat.data.documents import Documents, Place
from nanochat.data.lengths import nothing_to_learn
from nanochat.data.packing import TokenQueue, pad_rows, shift
from nanochat.data.position import State, check_state, identity_of
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer


class TextLoader:
    """Cuts one stream of tokens into rows, as nanochat's speedrun does. The stream is all documents, each after a `<|bos|>`.

    Every batch takes B*T + 1 tokens, and the next batch starts after them. `documents.py` determines the order of documents.
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
        """Return (inputs, targets), both (B, T) int64. Raises StageError when the files hold no document for this rank."""
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
    """Cuts one stream of rendered conversations into rows. Every token is a target, as in nanochat's midtraining.

    Of W ranks, rank r takes conversations r, r + W, ..., and starts over at the end. A conversation is cut to `seq_len` tokens;
    `state()` counts what was cut from those that have been used.
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
        self._round_robin = _RoundRobin(mixture, "packed", rank, world_size, state)
        self._queue: TokenQueue[int] = TokenQueue()
        self._skip: int = state["offset"] if state is not None else 0
        self._cut: int = state.get("cut_tokens", 0) if state is not None else 0
        self._cuts: deque[tuple[int, int]] = deque()  # (place, tokens cut) of conversations that are queued

    def __len__(self) -> int:
        """The number of conversations in one pass of all ranks together."""
        return self._round_robin.rows

    def epoch_progress(self) -> float:
        """The number of passes returned so far: 0.5 is half of the first pass, 1.0 all of it."""
        return self._round_robin.progress(self._place()[0])

    def next_batch(self) -> tuple[Tensor, Tensor]:
        count = self._batch_size * self._seq_len + 1
        while len(self._queue) < count:
            place, conversation = self._round_robin.take()
            ids, _ = self._tokenizer.render(conversation)
            if len(ids) > self._seq_len:
                self._cuts.append((place, len(ids) - self._seq_len))
            self._queue.push(place, np.array(ids[: self._seq_len], dtype=np.uint32), self._skip)
            self._skip = 0
        return shift(self._queue.pop(count), self._batch_size, self._seq_len)

    def state(self) -> State:
        place, offset = self._place()
        while self._cuts and self._cuts[0][0] < place:
            self._cut += self._cuts.popleft()[1]
        return {**self._round_robin.identity, "position": place, "offset": offset, "cut_tokens": self._cut}

    def _place(self) -> tuple[int, int]:
        return self._queue.head() or (self._round_robin.position, self._skip)


class SftLoader:
    """Puts one conversation in each row, padded with `<|assistant_end|>` to the longest of its batch, rounded up to a `multiple`.

    Only the assistant's tokens are targets. A conversation is cut to `seq_len` + 1 tokens and skipped if no target is left. Of W
    ranks, rank r takes every W-th of the others. So the rows of a step do not depend on the number of ranks, whatever is skipped;
    for that, every rank renders the conversations of all. `state()` counts the tokens that this rank has cut, and on rank 0 the
    conversations that were skipped.
    """

    def __init__(
        self,
        mixture: Sequence[Conversation],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        seq_len: int,
        multiple: int = 1,
        rank: int = 0,
        world_size: int = 1,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len, self._multiple = tokenizer, batch_size, seq_len, multiple
        self._rank, self._world_size = rank, world_size
        self._identity = {**identity_of(mixture, "examples"), "rank": rank, "world_size": world_size}
        if state is not None:
            check_state(state, self._identity)
        self._mixture = mixture
        saved = state or {}
        self._position: int = saved.get("position", 0)  # of all ranks together
        self._cut: int = saved.get("cut_tokens", 0)
        self._skipped: int = saved.get("skipped_conversations", 0)
        self._pad = tokenizer.special("<|assistant_end|>")

    def __len__(self) -> int:
        """The number of conversations in one pass of all ranks together."""
        return len(self._mixture)

    def epoch_progress(self) -> float:
        """The number of passes returned so far: 0.5 is half of the first pass, 1.0 all of it."""
        return self._position / len(self)

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Return (inputs, targets), both (B, T) int64, T at most `seq_len` rounded up. Raises StageError when no conversation has a target."""
        everyones = [self._next_row() for _ in range(self._batch_size * self._world_size)]
        mine, kept = everyones[self._rank :: self._world_size], self._seq_len + 1
        self._cut += sum(max(0, len(ids) - kept) for ids, _ in mine)
        return pad_rows([(ids[:kept], mask[:kept]) for ids, mask in mine], self._pad, multiple=self._multiple)

    def state(self) -> State:
        counts = {"cut_tokens": self._cut, "skipped_conversations": self._skipped}
        return {**self._identity, "position": self._position, **counts}

    def _next_row(self) -> tuple[list[int], list[int]]:
        for _ in range(len(self)):
            ids, mask = self._tokenizer.render(self._mixture[self._position % len(self)])
            self._position += 1
            if any(mask[: self._seq_len + 1]):
                return ids, mask
            self._skipped += self._rank == 0  # every rank sees it
        raise nothing_to_learn(len(self), self._seq_len)


class _RoundRobin:
    """Chooses the next conversation of rank r among W ranks: r, r + W, r + 2W, ... modulo the number of conversations."""

    def __init__(self, mixture: Sequence[Conversation], kind: str, rank: int, world_size: int, state: State | None):
        self.rows = len(mixture)
        self._mixture, self._rank, self._world_size = mixture, rank, world_size
        self.identity = {**identity_of(mixture, kind), "rank": rank, "world_size": world_size}
        if state is not None:
            check_state(state, self.identity)
        self.position: int = state["position"] if state is not None else 0

    def take(self) -> tuple[int, Conversation]:
        place = self.position
        self.position += 1
        return place, self._mixture[(self._rank + place * self._world_size) % self.rows]

    def progress(self, position: int) -> float:
        return position * self._world_size / self.rows
