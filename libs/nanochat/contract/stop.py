"""Stop requests: the stop file, or SIGTERM to any rank."""

from __future__ import annotations

import signal
from types import FrameType

from nanochat.contract.contract import StageContext


class StopRequest:
    """True once a stop was requested; the training loop then saves a checkpoint at the next step boundary and ends.

    A context manager: on exit it restores the handler of SIGTERM.
    """

    def __init__(self, ctx: StageContext):
        self._ctx, self._signalled = ctx, False

    def __enter__(self) -> StopRequest:
        self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def __bool__(self) -> bool:
        """Whether this rank knows of a request. Ranks must agree before they act on it."""
        return self._signalled or (self._ctx.rank == 0 and self._ctx.stop_requested())

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
