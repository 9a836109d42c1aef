"""A thread that takes turns until it is closed. No failed turn ends it: what it does must go on as long as the stage runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context

log = logging.getLogger(__name__)


class Turns:
    """Calls `turn` at once and then every `every_s` seconds. A turn that returns true is followed by the next one without a pause."""

    def __init__(self, name: str, turn: Callable[[], bool], every_s: float):
        self._name, self._turn, self._every_s = name, turn, every_s
        self._wake, self._closing = threading.Event(), threading.Event()
        # The copied context carries the ids of the attempt into the thread's log lines.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name=name, daemon=True)

    @property
    def died(self) -> bool:
        """Whether the thread has ended though nobody asked it to."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self.ending

    @property
    def ending(self) -> bool:
        return self._closing.is_set()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Take the next turn now."""
        self._wake.set()

    def end(self) -> None:
        """Take no further turn. A turn may call this itself."""
        self._closing.set()
        self._wake.set()

    def close(self) -> None:
        """End the thread, and wait for the turn that it is in."""
        self.end()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self.ending:
            more = False
            try:
                more = self._turn()
            except Exception:
                log.exception("the %s failed and continues", self._name)
            if not more:
                self._wake.wait(self._every_s)
                self._wake.clear()
