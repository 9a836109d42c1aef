"""An evaluation that runs out of memory goes on with half as much at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar, cast

import torch

from nanochat.contract import causes
from nanochat.distributed import Ranks

LEAST = 1 / 64
T = TypeVar("T")


class Halving:
    """`share` of what is usually computed at once; 1 until memory runs out.

    A rank whose memory runs out halves its share and repeats its part alone: the ranks exchange nothing until all have done their parts.
    Then `agree` gives all of them the smallest share.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self._reason = ""  # why it became less
        self._made: dict[Callable[[float], object], object] = {}

    def made(self, make: Callable[[float], T]) -> Callable[[], T]:
        """Gives what `make` makes for the share: made when it is first asked for, and anew after a change of the share or a failure."""

        def get() -> T:
            if make not in self._made:
                self._made[make] = make(self.share)
            return cast(T, self._made[make])

        return get

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns. Raises what `work` raises, an out-of-memory error only if the share is the least one."""
        while True:
            try:
                return work()
            except Exception as err:
                self._made.clear()
                if causes.code_of(err) != causes.OUT_OF_MEMORY or self.share <= LEAST:
                    raise
                self._reason = ". ".join(str(err).split(". ")[:2]) or type(err).__name__
            self.share /= 2
            gc.collect()  # outside the `except` block, which keeps the tensors of the failed pass alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def agree(self, ranks: Ranks) -> str:
        """Take the smallest share of all ranks. Returns what to warn of; nothing if memory sufficed. Every rank must call this."""
        reason, before = self._reason, self.share
        self.share, self._reason = min(row[0] for row in ranks.gather(self.share)), ""
        if self.share < before:
            self._made.clear()
        if not ranks.any(bool(reason)):
            return ""
        why = reason or "another process ran out of memory"
        return f"out of memory: {why}; the evaluation goes on with 1/{round(1 / self.share)} of what it computes at once"
