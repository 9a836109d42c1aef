"""Our descendants: adopt orphans among them, reap them, end them, measure their memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """On Linux, make every descendant whose parent dies our child, so that `descendants` finds it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_adopted(own: Iterable[int]) -> None:
    """Reap dead children, except those in `own`, which other code waits for."""
    own = set(own)
    while sys.platform == "linux":
        try:
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if dead is None or dead.si_pid in own:
            return
        os.waitpid(dead.si_pid, 0)


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def end_all(seconds: float, besides: Iterable[int] = ()) -> list[str]:
    """Wait `seconds` for every descendant except `besides` to end, then SIGKILL the rest. Returns the names of those killed."""
    spared = set(besides)
    waiting = [p for p in descendants() if p.pid not in spared]
    _, left = psutil.wait_procs(waiting, timeout=seconds)
    killed = []
    while left := [p for p in descendants() if p.pid not in spared and _alive(p)] if waiting or left else []:
        for process in left:
            with contextlib.suppress(psutil.Error):
                killed.append(process.name())
                process.kill()
        psutil.wait_procs(left, timeout=5)
    return killed


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


class PeakMemory:
    """Measures the memory of this process and its descendants; `bytes` is the highest sum seen.

    On Linux shared pages are divided among the processes that share them (PSS). Elsewhere resident sizes are added, which
    counts a shared page once for each process.
    """

    EVERY_S = 2.0

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @contextlib.contextmanager
    def watching(self) -> Iterator[PeakMemory]:
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join()

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            self.bytes = max(self.bytes, sum(_memory(p) for p in [psutil.Process(), *descendants()]))
            # Reading page tables costs time: use at most a twentieth of one core for it.
            if self._done.wait(max(self.EVERY_S, 20 * (time.monotonic() - began))):
                return


def _memory(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
        return int(getattr(full, "pss", full.rss))
    except psutil.AccessDenied:
        with contextlib.suppress(psutil.Error):
            return int(process.memory_info().rss)
    except psutil.Error:
        pass
    return 0
