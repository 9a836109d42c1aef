"""Run a program so that it cannot outlive its starter and, where it refuses to run as root, under another user id.

    python -I -S launch.py PARENT_PID SIGNAL IDENTITY PROGRAM [ARGUMENT...]

SIGNAL is sent to the program when the thread that started it ends (Linux; elsewhere the supervisor's own clean-up has to
do). IDENTITY is one of:

    self           the user id we have
    namespace:UID  our user id, seen as UID inside a user namespace of its own: files stay owned by us
    user:UID       drop to UID (we are root and namespaces are forbidden, as in an ordinary container)
    reach:UID      the same, keeping only CAP_DAC_OVERRIDE, for folders below one that UID may not enter (as /root)

A script of its own, standard library only, because it execs in a fresh process: code that runs between fork and exec in
a process with threads can deadlock.
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
        # After the change of identity, which clears it.
        _check(_libc().prctl(PR_SET_PDEATHSIG, int(signal), 0, 0, 0))
    if os.getppid() != int(parent):
        raise SystemExit("the starter is gone")
    os.execv(command[0], command)


def take(identity: str) -> None:
    """Become `identity` (see the module). Raises OSError when the kernel refuses."""
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
    """Make it permitted, effective and inheritable, then ambient, so that it survives execve of a plain file."""
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
