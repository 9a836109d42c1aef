"""Landlock: which files a process may open, create and remove (linux/landlock.h).

It does not cover the mode, owner and times of files, nor names that only `stat` sees. The seccomp filter refuses what changes
them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

from nanochat.tasks.confined import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
# Bits: 0 execute, 1 write file, 2 read file, 3 read folder, 4 remove folder, 5 remove file, 6 make device, 7 make folder, 8 make
# file, 9 make socket, 10 make FIFO, 11 make block device, 12 make symbolic link, 13 link or rename across folders, 14 truncate.
_RIGHTS = {1: 13, 2: 14}  # how many of them the version knows; later ones know 15 and more
_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_OWN_FOLDER = 0b111_0001_1011_1110  # everything but executing and making devices, sockets and FIFOs


def version() -> int:
    """Of the kernel's Landlock; 0 when it has none."""
    try:
        return kernel.syscall(_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def restrict(readable: Iterable[str], devices: Iterable[str], own: str) -> None:
    """Allow this process to read some folders and to use its own folder, and nothing else, for good. Raises OSError."""
    known = (1 << _RIGHTS.get(version(), 15)) - 1
    ruleset = kernel.syscall(_CREATE_RULESET, ctypes.create_string_buffer(struct.pack("Q", known)), 8, 0)
    rules = {**dict.fromkeys(readable, _READ | _LIST | _EXECUTE), **dict.fromkeys(devices, _READ | _WRITE), own: _OWN_FOLDER}
    for path, access in rules.items():
        if os.path.exists(path):
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = ctypes.create_string_buffer(struct.pack("=Qi", access & known, folder))
            kernel.syscall(_ADD_RULE, ruleset, 1, rule, 0)
            os.close(folder)
    kernel.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
