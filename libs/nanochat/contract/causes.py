"""The code of an exception that no stage turned into a StageError: what ran out or was refused, or that another rank is gone.

Imports no torch. Libraries report the same condition in many ways: `OSError` with a number, `torch.OutOfMemoryError`, or a plain RuntimeError
of which only the text tells. This is the one place that knows them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

CRASH, DISK_FULL, READ_ONLY, OUT_OF_MEMORY, PEER_LOST = "crash", "disk_full", "read_only", "out_of_memory", "peer_lost"
STORAGE = (DISK_FULL, READ_ONLY)  # faults of the machine that people mend; the stage itself is sound

NUMBERS = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EROFS: READ_ONLY,
    errno.ENOMEM: OUT_OF_MEMORY,
}
NAMES = {"MemoryError": OUT_OF_MEMORY, "OutOfMemoryError": OUT_OF_MEMORY}

# In order: the first pattern that is found decides. They serve an exception's text and the end of a process's output alike.
SIGNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"CUDA out of memory|CUDA error: out of memory|MPS backend out of memory|OutOfMemoryError|MemoryError\b"
            r"|can't allocate memory|Cannot allocate memory|std::bad_alloc|CUBLAS_STATUS_ALLOC_FAILED"
        ),
        OUT_OF_MEMORY,
    ),
    (re.compile(r"No space left on device|Disk quota exceeded|os error (?:28|122)\b"), DISK_FULL),
    (re.compile(r"Read-only file system|os error 30\b"), READ_ONLY),
    (
        re.compile(
            r"Watchdog caught collective operation timeout|NCCL communicator was aborted|DistBackendError|DistNetworkError"
            r"|gloo/transport|Connection (?:closed|reset) by peer"
        ),
        PEER_LOST,
    ),
)


def code_of(err: BaseException) -> str:
    """One of the five codes above, from the exception itself or from one that caused it."""
    for cause in _causes(err):
        if isinstance(cause, OSError) and cause.errno in NUMBERS:
            return NUMBERS[cause.errno]
        if isinstance(cause, PermissionError) and cause.filename:  # without a file it is about a socket or a process
            return READ_ONLY
        named = (NAMES[kind.__name__] for kind in type(cause).__mro__ if kind.__name__ in NAMES)
        if code := next(named, None) or code_in(f"{type(cause).__name__}: {cause}"):
            return code
    return CRASH


def code_in(text: str) -> str | None:
    """The code that a text speaks of, None if it names no known cause."""
    return next((code for pattern, code in SIGNS if pattern.search(text)), None)


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while err is not None and id(err) not in seen:
        seen.add(id(err))
        yield err
        err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
