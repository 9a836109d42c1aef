"""An evaluation that runs out of memory goes on with half as much at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from nanochat.contract import causes
from nanochat.distributed import Ranks

LEAST = 1 / 64
T = TypeVar("T")


class Halving:
    """`share` of what is usually computed at once; 1 until memory runs out.

    A rank whose memory runs out halves its share and repeats its part alone: the ranks exchange nothing until all have done their parts.
    Then `agree` gives all of them the smallest share. `reason` tells why the share became less.
    """

    def __init__(self) -> None:
        self.share = 1.0
        self.reason = ""

    def run(self, work: Callable[[], T], release: Callable[[], None]) -> T:
        """What `work` returns. `release` drops what `work` holds, after any exception. Raises what `work` raises, an out-of-memory
        error only if the share is the least one.
        """
        while True:
            try:
                return work()
            except Exception as err:
                release()
                if causes.code_of(err) != causes.OUT_OF_MEMORY or self.share <= LEAST:
                    raise
                self.reason = ". ".join(str(err).split(". ")[:2]) or type(err).__name__
            self.share /= 2
            gc.collect()  # outside the `except` block, which keeps the tensors of the failed pass alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def agree(self, ranks: Ranks) -> str:
        """Take the smallest share of all ranks. Returns what to warn of; nothing if memory sufficed. Every rank must call this."""
        reason = self.reason
        self.share, self.reason = min(row[0] for row in ranks.gather(self.share)), ""
        if not ranks.any(bool(reason)):
            return ""
        why = reason or "another process ran out of memory"
        return f"out of memory: {why}; the evaluation goes on with 1/{round(1 / self.share)} of what it computes at once"
