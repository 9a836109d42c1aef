"""Asks an API the same again and again, and notices when it does not answer any more."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from client.errors import ApiError, Unreachable
from client.text import seconds
from client.transport import RETRIED

SILENCE_S = 2.0  # from then on it says that the API does not answer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look(Generic[T]):
    """What was last seen, None before the first answer, and for how long the API has not answered."""

    seen: T | None
    silent_s: float


class Looks(Generic[T]):
    """Iterates over the answers of `ask`, at most `every_s` seconds apart, up to the one that `is_last`.

    A thread asks, so that an API that hangs is noticed. Raises ApiError, and Unreachable after `patience_s` without an answer.
    """

    def __init__(
        self,
        url: str,
        ask: Callable[[], T],
        *,
        every_s: float,
        is_last: Callable[[T], bool] = lambda _: False,
        patience_s: float = math.inf,
    ):
        self.url = url
        self._ask, self._every_s, self._is_last, self._patience_s = ask, every_s, is_last, patience_s
        self._answers: queue.Queue[Look[T] | Exception] = queue.Queue()
        self._left = threading.Event()

    def __iter__(self) -> Iterator[Look[T]]:
        threading.Thread(target=self._go_on_asking, daemon=True).start()
        last: Look[T] = Look(None, 0.0)
        answered_at = time.monotonic()
        try:
            while last.seen is None or not self._is_last(last.seen):
                try:
                    answer = self._answers.get(timeout=self._every_s)
                except queue.Empty:
                    pass
                else:
                    if isinstance(answer, Look):
                        last, answered_at = answer, time.monotonic()
                    elif not _passes(answer):
                        raise answer
                silent_s = time.monotonic() - answered_at
                if silent_s > self._patience_s:
                    raise Unreachable(self.url, TimeoutError(f"none for {seconds(silent_s)}"))
                yield Look(last.seen, silent_s if silent_s > SILENCE_S else 0.0)
        finally:
            self._left.set()

    def silence(self, look: Look[T]) -> str:
        """`no answer from http://… for 7s; trying again`, empty while it answers."""
        stale = ", what you see is that old" if look.seen is not None else ""
        return f"no answer from {self.url} for {seconds(look.silent_s)}{stale}; trying again" if look.silent_s else ""

    def _go_on_asking(self) -> None:
        while not self._left.is_set():
            try:
                answer = self._ask()
            except Exception as err:  # whatever it is, nobody may wait for this thread in vain
                self._answers.put(err)
                if not _passes(err):
                    return
            else:
                self._answers.put(Look(answer, 0.0))
                if self._is_last(answer):
                    return
            self._left.wait(self._every_s)


def _passes(error: Exception) -> bool:
    """Whether the server may answer later on."""
    return isinstance(error, Unreachable) or (isinstance(error, ApiError) and error.status in RETRIED)
