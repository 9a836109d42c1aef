"""Report the progress of an evaluation, and end it on a stop request."""

from __future__ import annotations

import time

from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.contract.stop import StopRequest

QUIET_S = 0.2  # seconds between events: at most five per second


class Progress:
    """Emits the progress events of one part of an evaluation. A call raises StageError after a stop request.

    Every rank has one, but only the events of rank 0 are written. An evaluation saves nothing, so it starts from the beginning
    after a stop.
    """

    def __init__(self, ctx: StageContext, stop: StopRequest, unit: str, note: str = ""):
        self._ctx, self._stop, self._unit, self._note = ctx, stop, unit, note
        self._start, self._spoke = time.monotonic(), 0.0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` units. Raises StageError with Exit.STOPPED."""
        if self._stop:
            # The first rank that notices ends the stage; torchrun then ends the others.
            raise StageError(
                "stopped on request; an evaluation has no checkpoint, so a new attempt starts from the beginning",
                code="stopped",
                exit_code=Exit.STOPPED,
            )
        now = time.monotonic()
        if now - self._spoke < QUIET_S and done < total:
            return
        self._spoke = now
        eta_s = round((now - self._start) / done * (total - done), 1) if done else None
        self._ctx.events.emit("progress", done=done, total=total, unit=self._unit, eta_s=eta_s, note=note or self._note)
