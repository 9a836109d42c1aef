"""Run a program so that it cannot outlive its parent, under another user id when it refuses to run as root.

    python -I -S launch.py PARENT_PID SIGNAL IDENTITY PROGRAM [ARGUMENT...]

On Linux the kernel sends SIGNAL to the program when the thread that started it ends. Elsewhere only the supervisor's own
clean-up ends it. IDENTITY is one of:

    self           our own user id
    namespace:UID  our own user id, which looks like UID inside a new user namespace; files stay owned by us
    user:UID       change to UID; for root where namespaces are forbidden, as in an ordinary container
    reach:UID      the same, but keep CAP_DAC_OVERRIDE, to reach folders below one that UID may not enter, such as /root

It is a script of its own that uses only the standard library. Doing the same between fork and exec of a process that has
threads can deadlock.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CLONE_NEWUSER = 0x10000000
CAP_DAC_OVERRIDE = 1
CAPABILITY_VERSION_3 = 0x20080522
OWN = "self"


def main(argv: list[str]) -> None:
    parent, signal, identity, *command = argv
    take(identity)
    if sys.platform == "linux":
        # After the change of identity, which clears this setting.
        _check(_libc().prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0))
    if os.getppid() != int(parent):
        raise SystemExit("the parent process is gone")
    os.execv(command[0], command)


def take(identity: str) -> None:
    """Change to `identity`, as the module describes. Raises OSError when the kernel refuses."""
    how, _, number = identity.partition(":")
    if how == OWN:
        return
    if how == "namespace":
        _enter_namespace(int(number))
        return
    if how == "reach":
        _check(_libc().prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setgid(int(number))
    os.setuid(int(number))
    if how == "reach":
        _keep_only(CAP_DAC_OVERRIDE)


def _enter_namespace(uid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _check(_libc().unshare(CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1")
    Path("/proc/self/gid_map").write_text(f"{uid} {outer_gid} 1")


def _keep_only(capability: int) -> None:
    """Drop all capabilities but this one. As an ambient capability it survives execve of a plain file."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    bit = 1 << capability
    data = struct.pack("=6I", bit, bit, bit, 0, 0, 0)
    _check(_libc().capset(header, data))
    _check(_libc().prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
