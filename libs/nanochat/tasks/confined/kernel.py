"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_MOUNT_SETATTR = 442  # the same on all architectures, as every call since Linux 5.1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPABILITY_VERSION_3 = 0x20080522

_libc: Any = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: Any) -> int:
    """Raises OSError. Integers are passed as 64 bits."""
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *values), f"system call {number}")


def prctl(option: int, value: Any) -> None:
    values = [ctypes.c_ulong(value) if isinstance(value, int) else value]
    _checked(_libc.prctl(option, *values, *[ctypes.c_ulong(0)] * 3), f"prctl {option}")


def seccomp_filter(code: ctypes.Array[ctypes.c_char], length: int) -> None:
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", length, ctypes.addressof(code)))
    values = [ctypes.c_ulong(2), head, ctypes.c_ulong(0), ctypes.c_ulong(0)]  # SECCOMP_MODE_FILTER
    _checked(_libc.prctl(PR_SET_SECCOMP, *values), "seccomp")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    arguments = [source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode()]
    _checked(_libc.mount(*arguments), f"mount {target}")


def unmount(target: str) -> None:
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def restrict_mount(target: str, attributes: int) -> None:
    """Set attributes of a mount and of all mounts below it (Linux 5.12)."""
    change = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, 0))
    syscall(_MOUNT_SETATTR, _AT_FDCWD, ctypes.c_char_p(target.encode()), _AT_RECURSIVE, change, 32)


def pivot_root(new: str, old: str) -> None:
    syscall(_PIVOT_ROOT[os.uname().machine], ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode()))


def drop_capabilities() -> None:
    head = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    syscall(_CAPSET[os.uname().machine], head, ctypes.create_string_buffer(24))


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
