"""Child processes that cannot outlive us, and what they need: locks, log files.

A child is started through `launch.py` in a session of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from services.standalone import launch

STARTED = "--- started "


class StartError(RuntimeError):
    """A process could not be started. The message says what, why and what to do."""


def spawn(
    argv: Sequence[str],
    *,
    log: IO[bytes] | None,
    die_with: signal.Signals,
    identity: str = launch.OWN,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv`. Its output goes to `log`, or to our own output when that is None.

    The kernel sends it the signal `die_with` when the calling thread ends, even by kill -9. So call this from a thread that
    lives as long as the child should; the main thread does.
    """
    return subprocess.Popen(
        [*launcher(die_with, identity), *argv],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=None if env is None else dict(env),
        cwd=cwd,
        pass_fds=tuple(keep_open),
        start_new_session=True,
    )


def launcher(die_with: signal.Signals, identity: str) -> list[str]:
    """The command before a program's own that runs it as `launch` describes."""
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(die_with)), identity]


def stop(process: subprocess.Popen[bytes], steps: Sequence[tuple[signal.Signals, float]]) -> int:
    """Send each signal in turn and wait so many seconds after each. At the end SIGKILL what is left of the process group."""
    for number, seconds in steps:
        if process.poll() is not None:
            break
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], *, name: str, log: Path, seconds: float) -> None:
    """Poll `ready` until it is true. Raises StartError with the end of the log when the process ends or time runs out."""
    began = time.monotonic()
    while not ready():
        waited = time.monotonic() - began
        if process.poll() is not None or waited > seconds:
            raise not_started(name, process, log, waited)
        time.sleep(0.05)


def not_started(name: str, process: subprocess.Popen[bytes] | None, log: Path, waited: float) -> StartError:
    code = process.poll() if process is not None else None
    how = f"was not ready after {waited:.0f} s" if code is None else f"ended with status {code}"
    return StartError(f"{name} {how} while starting. The last lines of its log:\n{tail(log)}\nThe whole log: {log}")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log file since the latest start; empty when there are none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16_384))
        _, start, latest = file.read().decode(errors="replace").rpartition(STARTED)
        return "\n".join(latest.splitlines()[bool(start) :][-lines:])  # leaves out the rest of the line that marks the start
    return ""


def lock(path: Path, *, what: str, seconds: float) -> int:
    """Lock the file `path`, write our pid into it, and return the open descriptor that holds the lock.

    A child that inherits the descriptor holds the lock too. So the lock of a server lasts until its last process is gone,
    even when its parent was killed. Raises StartError naming the holder when the lock is not free within `seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode().strip() or "unknown"
                os.close(descriptor)
                raise StartError(
                    f"{what} is already in use by the process {holder}; stop that first, or choose another folder"
                ) from None
            time.sleep(0.05)
        else:
            note_holder(descriptor, os.getpid())
            return descriptor


def held_by(path: Path) -> int | None:
    """The pid that the holder of the lock has written, or None when the lock is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(descriptor, 32, 0))
    else:
        return None
    finally:
        os.close(descriptor)


def note_holder(descriptor: int, pid: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{pid}\n".encode(), 0)


def private_file(path: Path, text: str) -> None:
    """Write a file that only we can read. It appears whole or not at all."""
    tmp = path.with_name(path.name + ".tmp")
    tmp.unlink(missing_ok=True)
    with open(os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)


@contextlib.contextmanager
def appended(path: Path) -> Iterator[IO[bytes]]:
    """A log file open for appending. A line that marks this start is written first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        file.write(f"{STARTED}at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode())
        yield file
