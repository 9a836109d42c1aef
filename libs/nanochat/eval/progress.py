"""How far an evaluation is, and whether it should stop."""

from __future__ import annotations

import time

from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.contract.stop import StopRequest

QUIET_S = 0.2  # at most five events a second


class Progress:
    """Progress events of one part of an evaluation. Calling it ends the stage when it was asked to stop.

    Every rank has one; only rank 0 is heard. An evaluation keeps nothing, so a stopped one starts anew.
    """

    def __init__(self, ctx: StageContext, stop: StopRequest, unit: str, note: str = ""):
        self._ctx, self._stop, self._unit, self._note = ctx, stop, unit, note
        self._start, self._spoke = time.monotonic(), 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units. Raises StageError with Exit.STOPPED."""
        if self._stop:
            # The first rank to notice ends the stage; the launcher then ends the others.
            raise StageError(
                "stopped as asked; an evaluation has no checkpoint and starts anew", code="stopped", exit_code=Exit.STOPPED
            )
        now = time.monotonic()
        if now - self._spoke < QUIET_S and done < total:
            return
        self._spoke = now
        eta_s = round((now - self._start) / done * (total - done), 1) if done else None
        self._ctx.events.emit("progress", done=done, total=total, unit=self._unit, eta_s=eta_s, note=note or self._note)
