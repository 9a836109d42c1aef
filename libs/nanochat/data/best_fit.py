"""Whole conversations packed into rows by best fit, so that little of a row is padding and no conversation is split."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from nanochat.data.lengths import nothing_to_learn
from nanochat.data.packing import BestFit, pad_rows
from nanochat.data.position import State, check_state, identity_of
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer

BUFFER = 256  # conversations that each rank chooses from


class BestFitLoader:
    """Each row takes the longest waiting conversation that still fits, until none does; the rest is padding without targets.

    Every pass places each conversation once: at its end the waiting ones are used up before the next pass begins. Of W ranks, rank r
    takes conversations r, r + W, ... A conversation is cut to `seq_len` + 1 tokens. With `answers_only` only the assistant's tokens
    are targets, and a conversation without any is skipped. `state()` counts the tokens that were cut, the conversations that were
    skipped, and the padding.
    """

    def __init__(
        self,
        mixture: Sequence[Conversation],
        tokenizer: Tokenizer,
        *,
        batch_size: int,
        seq_len: int,
        answers_only: bool,
        rank: int = 0,
        world_size: int = 1,
        state: State | None = None,
    ):
        self._tokenizer, self._batch_size, self._seq_len = tokenizer, batch_size, seq_len
        self._mixture, self._rank, self._world_size, self._answers_only = mixture, rank, world_size, answers_only
        self._identity = {**identity_of(mixture, "best_fit"), "rank": rank, "world_size": world_size}
        self._share = max(1, len(range(rank, len(mixture), world_size)))  # conversations of this rank in one pass
        self._pad = tokenizer.special("<|assistant_end|>")
        self._buffer: BestFit[int] = BestFit(seq_len + 1)
        self._pass = self._position = self._skipped = self._padding = 0
        if state is not None:
            check_state(state, self._identity)
            self._pass, self._position = state["pass"], state["position"]
            for place in state["waiting"]:
                self._add(place)
            self._skipped, self._padding = state["skipped_conversations"], state["padding_tokens"]
            self._buffer.placed, self._buffer.cropped = state["placed_tokens"], state["cut_tokens"]

    def __len__(self) -> int:
        """The number of conversations in one pass of all ranks together."""
        return len(self._mixture)

    def epoch_progress(self) -> float:
        """The number of passes whose conversations have been placed: 0.5 is half of the first pass, 1.0 all of it."""
        return self._pass + (self._position - len(self._buffer)) / self._share

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Return (inputs, targets), both (B, `seq_len`) int64. Raises StageError when no conversation has a target."""
        return pad_rows([self._row() for _ in range(self._batch_size)], self._pad, self._seq_len)

    def state(self) -> State:
        return {
            **self._identity,
            "pass": self._pass,
            "position": self._position,
            "waiting": sorted(self._buffer.places()),  # in the order in which they came
            "trained_conversations": self._pass * self._share + self._position - len(self._buffer) - self._skipped,
            "placed_tokens": self._buffer.placed,
            "cut_tokens": self._buffer.cropped,
            "skipped_conversations": self._skipped,
            "padding_tokens": self._padding,
        }

    def _row(self) -> tuple[list[int], list[int]]:
        room, parts = self._seq_len + 1, list[np.ndarray]()
        while room:
            self._refill(may_begin_pass=not parts)
            part = self._buffer.take_whole(room)
            if part is None:
                break
            parts.append(part)
            room -= len(part)
        self._padding += room
        ids, mask = np.concatenate(parts).T.tolist()
        return ids, mask

    def _refill(self, *, may_begin_pass: bool) -> None:
        begun = False  # a pass, in this call
        while len(self._buffer) < BUFFER:
            if self._position < self._share:
                if not self._add(self._position):
                    self._skipped += 1
                self._position += 1
            elif len(self._buffer) or not may_begin_pass:
                return
            elif begun:
                raise nothing_to_learn(len(self), self._seq_len)
            else:
                self._pass, self._position, begun = self._pass + 1, 0, True

    def _add(self, place: int) -> bool:
        """Let a conversation wait. Returns False for one without targets."""
        ids, mask = self._tokenizer.render(self._mixture[(self._rank + place * self._world_size) % len(self)])
        if self._answers_only and not any(mask[1 : self._seq_len + 1]):
            return False
        self._buffer.add(place, np.array([ids, mask if self._answers_only else [1] * len(ids)], dtype=np.int64).T)
        return True


def padding_pct(state: State) -> dict[str, float]:
    """The metric `padding_pct`: padding since the first step, in percent of this rank's rows. Empty for a loader without packing."""
    places = state.get("padding_tokens", 0) + state.get("placed_tokens", 0)
    return {"padding_pct": 100 * state["padding_tokens"] / places} if places else {}
