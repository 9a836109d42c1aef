"""Find all processes of a stage, wherever they are in the process tree, and stop them; the identity of a process.

torchrun gives each rank a session of its own, so a process group does not hold them all. A variable in the environment
does: every descendant inherits it, and it names the attempt.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import time
from pathlib import Path

import psutil

from controlplane.models import Json

MARK = "NANOCHAT_ATTEMPT"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PR_SET_CHILD_SUBREAPER = 36

_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def marked(mark: str) -> list[psutil.Process]:
    """Every process of the attempt that `mark` names, wherever it is in the process tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def kill_all(mark: str, seconds: float = 10.0) -> bool:
    """SIGKILL all processes of an attempt until none is left. False if one survives `seconds`, because it is uninterruptible."""
    deadline = time.monotonic() + seconds
    while alive := [p for p in marked(mark) if p.pid != os.getpid()]:
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(alive, timeout=0.5)
        if time.monotonic() > deadline:
            return False
    return True


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, so that none escapes to init (Linux)."""
    if _PRCTL is not None:
        _PRCTL(PR_SET_CHILD_SUBREAPER, 1)


def identity() -> Json:
    """This process, identified so that no other process which had its pid is taken for it."""
    return {"host": socket.gethostname(), "pid": os.getpid(), **_birth(os.getpid())}


def is_here(who: Json) -> bool:
    """Whether that process ran on this machine."""
    return who.get("host") == socket.gethostname()


def is_alive(who: Json) -> bool:
    """Whether that process of this machine still runs. An identity without these fields is of an earlier version: it has ended."""
    try:
        pid = int(who["pid"])
        same = _birth(pid) == {key: who[key] for key in ("boot", "ticks")}
        return same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (KeyError, OSError, psutil.NoSuchProcess):
        return False


def _birth(pid: int) -> Json:
    """When the process started: clock ticks since the boot, and which boot. Raises OSError or NoSuchProcess if there is none.

    No time of day: a step of the clock, a pause of the machine or its migration would move it, and a healthy process would
    look like another one. The fields of `stat` are counted from the last parenthesis, because a name may hold spaces.
    """
    if sys.platform != "linux":
        return {"boot": "", "ticks": int(psutil.Process(pid).create_time())}
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {"boot": BOOT_ID.read_text().strip(), "ticks": int(fields[19])}
