"""The lease file: it tells a stage that its supervisor lives, and that its attempt is still the current one. Imports no torch.

The supervisor writes `lease` in the attempt's folder before it starts the stage, and again every second. All times are seconds since
the boot, suspended time included: no step of the clock moves them. A stage without the file, run by hand, is its own master.

A supervisor that is frozen or cut off writes no more. Then another worker takes the stage, and its attempt reads the checkpoints of
this one. So the stage asks itself to stop at `stop_at`, ends at `end_at`, which is before the stage can be taken, and deletes no
checkpoint after `held_until`. While only the ledger is silent, the supervisor moves `stop_at` and `end_at` on, but not `held_until`:
training goes on, and its checkpoints stay until the ledger says whose they are.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

LEASE = "lease"
POLL_S = 0.5
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Lease:
    """`boot` is the boot of the machine that the times belong to. A rank on another machine cannot judge them."""

    boot: str
    stop_at: float
    end_at: float
    held_until: float


class LeaseFile:
    """The supervisor's side. It writes in place, which needs no room on a full disk. Raises OSError."""

    def __init__(self, out: Path):
        self._fd = os.open(out / LEASE, os.O_WRONLY | os.O_CREAT, 0o644)

    def write(self, lease: Lease) -> None:
        boot, *times = astuple(lease)
        line = " ".join([boot, *(f"{at:017.3f}" for at in times)]) + "\n"  # always of one length
        os.pwrite(self._fd, line.encode(), 0)

    def close(self) -> None:
        os.close(self._fd)


def now() -> float:
    """Seconds since the boot of this machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


def boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "this-boot"


def read(out: Path) -> Lease | None:
    """None if the stage has no lease. Raises OSError, and ValueError if the file is not a lease."""
    try:
        boot, *times = (out / LEASE).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    stop_at, end_at, held_until = map(float, times)
    return Lease(boot, stop_at, end_at, held_until)


def may_delete(out: Path) -> bool:
    """Whether the attempt that writes to `out` surely still is its stage's current one. If in doubt it is not."""
    try:
        lease = read(out)
    except (OSError, ValueError):
        return False
    return lease is None or (lease.boot == boot_id() and now() < lease.held_until)


def watch(out: Path, stop: Path, exit_code: int) -> None:
    """Follow the lease in a thread: create the file `stop` at `stop_at`, and end this process with `exit_code` at `end_at`."""
    with suppress(OSError, ValueError):
        if (lease := read(out)) is not None and lease.boot == boot_id():
            threading.Thread(target=_watch, args=(out, stop, exit_code, lease), name="lease", daemon=True).start()


def _watch(out: Path, stop: Path, exit_code: int, lease: Lease) -> None:
    while now() < lease.end_at:
        if now() >= lease.stop_at:
            with suppress(OSError):
                stop.touch()
        time.sleep(POLL_S)
        with suppress(OSError, ValueError):
            lease = read(out) or lease
    sys.stderr.write("the supervisor has not renewed the lease of this attempt; it ends before another attempt begins\n")
    sys.stderr.flush()
    os._exit(exit_code)
