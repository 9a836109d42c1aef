"""The GPUs of this machine, and jobs run on all of them at once, one job per GPU."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from benchmarks.result import cpu, slug

Item = TypeVar("Item")
Found = TypeVar("Found")


def cards() -> list[str]:
    """The names of the CUDA devices that this process sees."""
    import torch  # takes seconds to load, so only after the options have been checked

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


def device() -> str:
    """What the results call this machine: the name of its GPU, or of its processors where there is none."""
    return slug(found[0]) if (found := cards()) else cpu()


def spread(jobs: Iterable[Item], count: int, work: Callable[[Item, dict[str, str]], Found]) -> list[Found]:
    """Call `work(job, env)` for every job on whichever of `count` GPUs is free. `env` hides the other GPUs from a process.

    Results come in the order in which jobs end.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    found: list[Found] = []
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = shown.split(",") if shown else [str(card) for card in range(count)]

    def serve(card: int) -> None:
        while True:
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                return
            found.append(work(job, {"CUDA_VISIBLE_DEVICES": names[card]}))

    threads = [threading.Thread(target=serve, args=(card,)) for card in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
