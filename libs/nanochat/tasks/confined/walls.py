"""Every limit of a process that runs what a model wrote, in the order in which they can be set."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from dataclasses import dataclass

from nanochat.tasks.confined import kernel, landlock, namespaces, seccomp

FILE_BYTES = 8 * 2**20  # of one file
FOLDER_BYTES = 64 * 2**20  # of all files together
FOLDER_FILES = 1000
_OPEN_FILES = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one program. `folder` is the only place where it may write; `walls` are what the kernel offers."""

    seconds: float
    memory: int
    folder: str
    walls: tuple[str, ...]


def offered(in_namespaces: bool) -> tuple[str, ...]:
    """What this kernel offers, in the words of a report."""
    if sys.platform != "linux":
        return ()
    walls = {"user namespaces": in_namespaces, "Landlock": landlock.version() > 0, "seccomp": seccomp.available()}
    return tuple(name for name, there in walls.items() if there)


def raise_walls(limits: Limits) -> None:
    """Confine this process for good. Raises OSError when a wall that the kernel offers cannot be raised."""
    _limit_resources(limits)
    if not limits.walls:
        return
    kernel.prctl(kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)  # no core file, and no ptrace by the same user
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if "Landlock" in limits.walls:
        landlock.restrict(namespaces.readable(), namespaces.DEVICES, limits.folder)
    kernel.drop_capabilities()
    if "seccomp" in limits.walls:
        seccomp.restrict()


def _limit_resources(limits: Limits) -> None:
    values = {
        "RLIMIT_CPU": int(limits.seconds) + 1,
        "RLIMIT_AS": limits.memory,
        "RLIMIT_DATA": limits.memory,
        "RLIMIT_FSIZE": FILE_BYTES,
        "RLIMIT_NOFILE": _OPEN_FILES,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    if "seccomp" not in limits.walls:
        values["RLIMIT_NPROC"] = 0  # no new process; seccomp refuses them without refusing threads
    for name, value in values.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS lacks some; a hard limit may be lower already
            resource.setrlimit(getattr(resource, name), (value, value))
