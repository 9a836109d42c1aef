"""The system calls that a program may make: a list of what Python's library needs for computing and for files.

Everything else fails with EPERM: new processes and programs, sockets, signals to others, modes, owners and times of files,
shared memory, another process's memory, limits, priorities, and whatever a later kernel adds.
"""

from __future__ import annotations

import ctypes
import os
import struct

from nanochat.tasks.confined import kernel

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Numbers on (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h. aarch64 lacks some old calls.
ALLOWED: dict[str, tuple[int, int | None]] = {
    # reading and writing
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287), "copy_file_range": (326, 285),
    "sendfile": (40, 71), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "ftruncate": (77, 46), "fallocate": (285, 47),
    "fadvise64": (221, 223), "fsync": (74, 82), "fdatasync": (75, 83), "recvfrom": (45, 207), "shutdown": (48, 210),
    # files
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "creat": (85, None),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36), "readlink": (89, None),
    "readlinkat": (267, 78), "umask": (95, 166), "statfs": (137, 43), "fstatfs": (138, 44),
    # waiting
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22), "eventfd2": (290, 19),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "pause": (34, None), "alarm": (37, None), "setitimer": (38, 103),
    "getitimer": (36, 102),
    # memory and threads
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233), "brk": (12, 214),
    "msync": (26, 227), "futex": (202, 98), "set_robust_list": (273, 99), "set_tid_address": (218, 96), "rseq": (334, 293),
    "arch_prctl": (158, None), "membarrier": (324, 283), "sched_yield": (24, 124), "exit": (60, 93), "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    # its own signals
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132),
    # questions
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158),
    "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156), "getrusage": (98, 165), "getrlimit": (97, 163),
    "sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278), "sched_getaffinity": (204, 123), "getcpu": (309, 168),
}  # fmt: skip


def _low(argument: int) -> int:
    return 16 + 8 * argument  # where the filter finds the lower half of an argument


def _high(argument: int) -> int:
    return _low(argument) + 4


_ANY = 0xFFFFFFFF
_Condition = tuple[int, int, tuple[int, ...]]  # place, mask, allowed values of (what stands there & mask)


def _conditional(pid: int) -> dict[str, tuple[tuple[int, int | None], tuple[_Condition, ...]]]:
    """Calls that are allowed with some arguments only."""
    no_truncating_reader = (0o1003, (0, 1, 2, 3, 0o1001, 0o1002, 0o1003))  # O_TRUNC with O_RDONLY gets past old Landlock
    null_limit = ((_low(0), _ANY, (0,)), (_low(2), _ANY, (0,)), (_high(2), _ANY, (0,)))
    null_address = ((_low(4), _ANY, (0,)), (_high(4), _ANY, (0,)))
    return {
        "open": ((2, None), ((_low(1), *no_truncating_reader),)),
        "openat": ((257, 56), ((_low(2), *no_truncating_reader),)),
        "clone": ((56, 220), ((_low(0), 0x10000, (0x10000,)),)),  # CLONE_THREAD: threads, no processes
        # F_DUPFD, flags, locks and a pipe's size, but neither F_SETOWN nor F_SETSIG, F_NOTIFY, F_SETLEASE, F_SETPIPE_SZ
        "fcntl": ((72, 25), ((_low(1), _ANY, (0, 1, 2, 3, 4, 5, 6, 7, 1030, 1032)),)),
        # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
        "ioctl": ((16, 29), ((_low(1), _ANY, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),)),
        "prlimit64": ((302, 261), null_limit),  # reads its own limits
        "kill": ((62, 129), ((_low(0), _ANY, (pid,)),)),
        "tgkill": ((234, 131), ((_low(0), _ANY, (pid,)),)),
        "socketpair": ((53, 199), ((_low(0), _ANY, (1,)),)),  # AF_UNIX: asyncio wakes itself with one
        "sendto": ((44, 206), null_address),
    }


_CLONE3 = 435
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_GET_ACTION_AVAIL = 2
_LOAD, _AND, _EQUAL, _AT_LEAST, _GIVE = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_Line = tuple[int, int, int, int]  # operation, jump if true, jump if false, value


def available() -> bool:
    machine = os.uname().machine
    if machine not in AUDIT_ARCH:
        return False
    try:
        kernel.syscall(_SECCOMP[machine], _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(_KILL)))
    except OSError:
        return False
    return True


def restrict() -> None:
    """Allow this process the calls of the tables, for good. Raises OSError. Another architecture's calls kill it."""
    program = _program(os.uname().machine, os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    kernel.seccomp_filter(code, len(program))


def _program(machine: str, pid: int) -> list[_Line]:
    column = list(AUDIT_ARCH).index(machine)
    lines: list[_Line] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, AUDIT_ARCH[machine]), (_GIVE, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":  # the x32 ABI shares the architecture's number
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_GIVE, 0, 0, _KILL)]
    for numbers in ALLOWED.values():
        if (number := numbers[column]) is not None:
            lines += [(_EQUAL, 0, 1, number), (_GIVE, 0, 0, _ALLOW)]
    for numbers, conditions in _conditional(pid).values():
        if (number := numbers[column]) is not None:
            block = _block(conditions)
            lines += [(_EQUAL, 0, len(block), number), *block]
    # libc then falls back to clone, whose flags the filter can read.
    return [*lines, (_EQUAL, 0, 1, _CLONE3), (_GIVE, 0, 0, _ENOSYS), (_GIVE, 0, 0, _EPERM)]


def _block(conditions: tuple[_Condition, ...]) -> list[_Line]:
    lines: list[_Line] = []
    for place, mask, values in conditions:
        lines += [(_LOAD, 0, 0, place), (_AND, 0, 0, mask)]
        lines += [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        lines += [(_GIVE, 0, 0, _EPERM)]
    return [*lines, (_GIVE, 0, 0, _ALLOW)]
