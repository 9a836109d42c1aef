"""Work that is given up after a while, whatever it waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises. Raises TimeoutError if it takes longer: it goes on, in a thread that ends with the process.

    The timeouts of a connection are no bound: a server may send byte after byte.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as err:  # it is raised where the result is asked for
            future.set_exception(err)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=seconds)
