"""Control loops in threads beside the HTTP server.

Every API process runs all of them. Each tick takes an advisory lock in Postgres, so that only one process works at a time.
A failed tick is logged and tried again. Nothing is lost by a missed tick, because the state is in the database.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

PERIOD_S = 1.0  # between ticks
FAILED_PERIOD_S = 3.0  # after a failed tick

log = logging.getLogger(__name__)


class LoopThread:
    """Calls `tick` once per period, and at once when woken."""

    def __init__(self, name: str, tick: Callable[[], object], *, period_s: float = PERIOD_S):
        self._tick, self._period_s = tick, period_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Tick now. Cheap, and safe to call from any thread."""
        self._wake.set()

    def stop(self) -> None:
        """End after the current tick. Returns when the thread has ended, or after ten seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._period_s if self._tick_once() else FAILED_PERIOD_S
            self._wake.wait(pause)
            self._wake.clear()

    def _tick_once(self) -> bool:
        name = self._thread.name
        try:
            self._tick()
        except Exception:
            # One traceback per outage, not one per tick.
            log.log(logging.DEBUG if self._failing else logging.ERROR, "%s failed and will be tried again", name, exc_info=True)
            self._failing = True
            return False
        if self._failing:
            log.info("%s works again", name)
        self._failing = False
        return True
