"""Linux namespaces: a user without rights outside, no network, no process in sight, and a file system of its own.

The file system holds the interpreter's library and the system's shared libraries, read-only, four devices and an empty /tmp.
There is no /proc. Order and flags follow user_namespaces(7), pivot_root(2) and mount_setattr(2).
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable

from nanochat.tasks.confined import kernel

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
HOME = "/tmp"
_NOBODY = 65534
_OLD = "/.outside"


def readable() -> list[str]:
    """Folders that a program may read: Python's library, shared libraries and time zones."""
    library = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")} | {os.path.dirname(os.__file__)}
    if sys.base_prefix != "/usr":
        library.add(os.path.join(sys.base_prefix, "lib"))
    system = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo"}
    return sorted(path for path in library | system if os.path.isdir(path))


def enter() -> None:
    """Leave the machine's namespaces for good. Raises OSError where the kernel, or a container's rules, do not allow it."""
    uid, gid, paths = os.geteuid(), os.getegid(), readable()
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{_NOBODY} {uid} 1"), ("gid_map", f"{_NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    _change_root(paths)


def make_private(size: int, files: int) -> None:
    """Give this process a /tmp of its own, which disappears with the last process that sees it."""
    kernel.unshare(kernel.CLONE_NEWNS)
    options = f"size={size},nr_inodes={files},mode=700,uid={_NOBODY},gid={_NOBODY}"
    kernel.mount("sandbox", HOME, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, options)


def _change_root(paths: Iterable[str]) -> None:
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    real = {path: os.path.realpath(path) for path in paths}  # before anything is mounted over them
    kernel.mount("root", HOME, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    os.mkdir(HOME + _OLD)
    kernel.pivot_root(HOME, HOME + _OLD)
    os.chdir("/")
    locked = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID
    shown: list[str] = []
    for path in sorted(set(real.values())):
        if not any(path.startswith(parent + "/") for parent in shown):
            os.makedirs(path, exist_ok=True)
            _show(path, locked | kernel.MOUNT_ATTR_NODEV)
            shown.append(path)
    for path, target in real.items():
        if not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(target, path)
    os.mkdir("/dev")
    for device in DEVICES:
        os.close(os.open(device, os.O_CREAT | os.O_WRONLY, 0o644))
        _show(device, locked)
    os.mkdir(HOME)
    kernel.unmount(_OLD)
    os.rmdir(_OLD)
    kernel.restrict_mount("/", locked)


def _show(path: str, attributes: int) -> None:
    kernel.mount(_OLD + path, path, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.restrict_mount(path, attributes)
