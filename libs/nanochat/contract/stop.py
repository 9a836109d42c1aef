"""Being asked to stop: by the stop file, or by SIGTERM to any rank."""

from __future__ import annotations

import signal
from types import FrameType

from nanochat.contract.contract import StageContext


class StopRequest:
    """Notices; the loop ends at the next step boundary, with a checkpoint. Restores the signal's handler when left."""

    def __init__(self, ctx: StageContext):
        self._ctx, self._signalled = ctx, False

    def __enter__(self) -> StopRequest:
        self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def __bool__(self) -> bool:
        """This rank's view only: ranks must agree before they act."""
        return self._signalled or (self._ctx.rank == 0 and self._ctx.stop_requested())

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
