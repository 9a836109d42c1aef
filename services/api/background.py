"""The control loops: small, named by role, each in a thread of its own beside the HTTP server.

Every API process runs them; an advisory lock in Postgres (taken inside each tick) lets one of them work at a time.
A tick that fails is logged and tried again: the rows are the truth, so nothing is lost by a missed round.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

PERIOD_S = 1.0
FAILED_PERIOD_S = 3.0

log = logging.getLogger(__name__)


class Loop:
    """Calls `tick` every period, and at once when woken."""

    def __init__(self, name: str, tick: Callable[[], object], *, period_s: float = PERIOD_S):
        self._tick, self._period_s = tick, period_s
        self._wake, self._stop = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Go round now; safe from any thread, and cheap."""
        self._wake.set()

    def stop(self) -> None:
        """End after the tick at hand; returns when the thread has ended, or after ten seconds."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._period_s if self._go_round() else FAILED_PERIOD_S
            self._wake.wait(pause)
            self._wake.clear()

    def _go_round(self) -> bool:
        name = self._thread.name
        try:
            self._tick()
        except Exception:
            # One traceback an outage, not one a second.
            log.log(logging.DEBUG if self._failing else logging.ERROR, "%s failed; it goes on trying", name, exc_info=True)
            self._failing = True
            return False
        if self._failing:
            log.info("%s works again", name)
        self._failing = False
        return True
