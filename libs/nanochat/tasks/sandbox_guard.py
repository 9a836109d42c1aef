"""The child process of `sandbox.py`: sets every limit, then runs the program that it reads from stdin. Standard library only.

It runs as a script under `python -I -S`; nothing imports it. The order matters: resource limits, Landlock, seccomp, audit
hook, program. The numbers are those of the Linux ABI: linux/landlock.h, linux/seccomp.h and the syscall tables of x86_64 and aarch64.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import struct
import sys
import sysconfig
import traceback
from collections.abc import Callable
from typing import Any

# Refused syscalls with their numbers on (x86_64, aarch64): sockets, new processes, signals to other processes, access to
# their memory, raising one's own limits, memory that RLIMIT_AS does not count, and what only an administrator needs.
SYSCALLS: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "sendto": (44, 206),
    "io_uring_setup": (425, 425), "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "setsid": (112, 157), "setpgid": (109, 154), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setrlimit": (160, 164), "prlimit64": (302, 261),
    "memfd_create": (319, 279), "shmget": (29, 194), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "sethostname": (170, 161), "iopl": (172, None), "ioperm": (173, None),
}  # fmt: skip
CLONE, CLONE3 = (56, 220), (435, 435)
ARCHES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the table, AUDIT_ARCH

# Audit events that Python refuses: the only defence where the kernel has none, a second one where it has.
REFUSED_EVENTS = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.forkpty", "os.spawn", "os.posix_spawn", "os.kill", "os.killpg",
    "pty.", "ctypes.", "signal.pthread_kill", "resource.setrlimit", "resource.prlimit", "os.putenv", "sys.addaudithook",
    "syslog.", "ftplib.", "http.client", "imaplib.", "smtplib.", "urllib.", "webbrowser.", "sqlite3.", "code.__new__",
)  # fmt: skip
PATH_EVENTS = (
    "open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "os.utime", "os.chdir", "os.mkfifo", "os.mknod", "os.setxattr", "os.removexattr", "shutil.",
)  # fmt: skip


def main() -> None:
    spec = json.loads(sys.argv[1])
    sys.argv[:] = ["program.py"]
    with os.fdopen(os.dup(0), encoding="utf-8", errors="surrogatepass") as file:
        source = file.read()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for name in ("encodings.idna", "linecache", "tokenize"):  # modules that printing a traceback would load later
        with contextlib.suppress(ImportError):
            __import__(name)
    walls = raise_walls(spec)
    sys.addaudithook(audit_hook(spec["cwd"]))
    end = run(source)
    os.write(spec["outcome"], json.dumps({"end": end, "walls": walls}).encode() + b"\n")
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    with contextlib.suppress(Exception):
        sys.stderr.flush()
    os._exit(0 if end == "ok" else 1)  # does not wait for threads that the program left running


def run(source: str) -> str:
    """Returns "ok" if the last line is reached, otherwise "memory" or "error" (exit calls included) with the traceback on stderr."""
    try:
        exec(compile(source, "program.py", "exec"), {})  # as HumanEval does: `__name__` is not "__main__"
        return "ok"
    except MemoryError:
        with contextlib.suppress(Exception):
            sys.stderr.write("MemoryError\n")
        return "memory"
    except BaseException as err:
        with contextlib.suppress(Exception):
            traceback.print_exception(
                type(err), err, err.__traceback__ and err.__traceback__.tb_next
            )  # without the guard's own frame
        return "error"


def raise_walls(spec: dict[str, Any]) -> list[str]:
    set_limits(spec)
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: no orphan when the parent dies
    libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE off: no core files, no ptrace from the same user
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS, which Landlock and seccomp require
        return []
    walls = [name for name, wall in (("landlock", landlock), ("seccomp", seccomp)) if wall(libc, spec["cwd"])]
    for name in [n for n in sys.modules if n == "ctypes" or n.startswith(("ctypes.", "_ctypes"))]:
        del sys.modules[name]
    del globals()["ctypes"]
    return walls


def set_limits(spec: dict[str, Any]) -> None:
    values = {
        "RLIMIT_CPU": spec["cpu_s"],
        "RLIMIT_AS": spec["memory"],
        "RLIMIT_DATA": spec["memory"],
        "RLIMIT_FSIZE": spec["file"],
        "RLIMIT_NPROC": 0,  # no new process or thread; root is exempt from the limit, so seccomp refuses them as well
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
        "RLIMIT_MEMLOCK": 0,
    }
    for name, value in values.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):  # macOS lacks some
            resource.setrlimit(getattr(resource, name), (value, value))


def landlock(libc: Any, cwd: str) -> bool:
    """Allow reading the interpreter and the system's libraries and writing below `cwd`, nothing else. True when in force."""
    create, add, restrict = 444, 445, 446
    abi = libc.syscall(create, None, 0, 1)
    if abi < 1:
        return False
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
    read = 0b1101  # execute, read file, read folder
    handled = ctypes.create_string_buffer(struct.pack("Q", everything))
    ruleset = libc.syscall(create, handled, 8, 0)
    if ruleset < 0:
        return False
    stdlib = {sysconfig.get_path(n) for n in ("stdlib", "platstdlib")} | {os.path.dirname(os.__file__)}
    system = {"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime"}
    devices = {"/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"}
    rules = {**dict.fromkeys(stdlib | system, read), **dict.fromkeys(devices, 0b110), cwd: everything}
    for path, access in rules.items():
        if not os.path.exists(path):
            continue
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            access &= 0b111 | 1 << 14 | 1 << 15  # the rights that exist for a file
        libc.syscall(add, ruleset, 1, ctypes.create_string_buffer(struct.pack("=Qi", access, fd)), 0)
        os.close(fd)
    done = bool(libc.syscall(restrict, ruleset, 0) == 0)
    os.close(ruleset)
    return done


def seccomp(libc: Any, _cwd: str) -> bool:
    """Refuse the table's syscalls with EPERM; kill the process on a syscall of another architecture. True when in force."""
    if platform.machine() not in ARCHES:
        return False
    column, arch = ARCHES[platform.machine()]
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, eperm, enosys = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(at_least, 0, 1, 0x40000000), (give, 0, 0, kill)]  # the x32 ABI shares the architecture's number
    for numbers in SYSCALLS.values():
        number = numbers[column]
        if number is not None:
            program += [(equal, 0, 1, number), (give, 0, 0, eperm)]
    program += [
        (equal, 0, 1, CLONE3[column]),
        (give, 0, 0, enosys),
    ]  # libc then falls back to clone, whose flags the filter can read
    program += [(equal, 0, 3, CLONE[column]), (load, 0, 0, 16), (any_bit, 1, 0, 0x10000), (give, 0, 0, eperm)]
    program += [(give, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    return bool(libc.prctl(22, 2, head, 0, 0) == 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def audit_hook(cwd: str) -> Callable[[str, tuple[Any, ...]], None]:
    home = os.path.realpath(cwd) + os.sep
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    realpath, fspath, join = os.path.realpath, os.fspath, os.path.join

    def outside(path: Any) -> bool:
        if isinstance(path, int) or path is None:
            return False
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        return not (realpath(join(home, fspath(path))) + os.sep).startswith(home)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(REFUSED_EVENTS):
            raise PermissionError(f"{event} is not allowed in the sandbox")
        if event == "import" and args[0].partition(".")[0] in ("ctypes", "_ctypes", "_posixsubprocess", "cffi"):
            raise ImportError(f"{args[0]} is not allowed in the sandbox")
        if event == "open":
            if args[2] & writing and outside(args[0]) and args[0] != os.devnull:
                raise PermissionError(f"writing {args[0]!r} is not allowed in the sandbox")
        elif event.startswith(PATH_EVENTS) and any(outside(a) for a in args if isinstance(a, str | bytes | os.PathLike)):
            raise PermissionError(f"{event} outside the sandbox's folder is not allowed")

    return hook


if __name__ == "__main__":
    main()
