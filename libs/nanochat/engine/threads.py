"""How many threads a model needs on a CPU."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from nanochat.config.shape import GPTConfig

# Up to this width (d12) a second thread never made a step faster on two cores (docs/lab/engine.md): its operators are shorter
# than the time in which a sleeping thread wakes up.
ONE_THREAD_WIDTH = 768


def threads_for(config: GPTConfig, device: torch.device) -> int | None:
    """1 for a small model on a CPU; None, as many as torch has, for others and where OMP_NUM_THREADS says how many."""
    small = device.type == "cpu" and config.n_embd <= ONE_THREAD_WIDTH
    return 1 if small and "OMP_NUM_THREADS" not in os.environ else None


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use `count` threads inside, and afterwards as many as before: training in the same process uses them all."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)  # 4 us
    try:
        yield
    finally:
        torch.set_num_threads(before)
