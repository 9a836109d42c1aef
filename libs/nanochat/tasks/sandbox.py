"""Runs Python that a model wrote, with a test that it cannot see, where it can do no harm.

    this process ── socket ──▶ zygote ── fork ──▶ keeper ── fork ──▶ program ◀─ values ─▶ judge ── verdict ──▶ keeper

The zygote is one process per process of ours, started at the first program; a fork of it takes 1/20 of the time of a new
interpreter. The program and its test are processes of their own (`confined/`), both confined: user namespaces where the kernel
allows them, Landlock, a seccomp filter and resource limits. The verdict is the judge's, which the program cannot reach.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from nanochat.tasks.confined.keeper import OUTPUT_CAP
from nanochat.tasks.confined.zygote import JOB

__all__ = ["OUTPUT_CAP", "Result", "Sandbox", "default", "run"]

_LIBRARY = Path(__file__).parents[2]
_START = (
    "import sys, socket; sys.path.append(sys.argv[1]); from nanochat.tasks.confined import zygote; sys.path.pop();"
    "zygote.main(socket.socket(fileno=int(sys.argv[2])), sys.argv[3] == 'namespaces')"
)
_PATIENCE_S = 30.0  # beyond a program's own time, for a machine that is busy


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. `success`: it and its test reached their last lines, without an exception or an exit call."""

    success: bool
    stdout: str
    stderr: str
    timeout: bool = False
    memory: bool = False


class Sandbox:
    """Any number of threads may use it at the same time; each program has processes of its own."""

    def __init__(self, *, namespaces: bool = True) -> None:
        """With `namespaces=False` none are used, as on a kernel, or in a container, that does not allow them."""
        self._namespaces = namespaces
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None

    def run(self, program: str, test: str = "", *, timeout_s: float = 5.0, memory_mib: int = 256) -> Result:
        """Run Python source with the standard library only, then `test` on the names that it has defined.

        The program runs as by `exec(program, {})`. Names that the test lacks are the program's. Both see an empty folder as their
        current directory, an empty stdin and none of this process's environment. When this returns, both have ended.
        """
        with contextlib.ExitStack() as stack:
            files = [_file(stack, program), _file(stack, test)]
            answer, theirs = os.pipe()
            stack.callback(os.close, answer)
            try:
                with self._lock:
                    self._started().send(timeout_s, memory_mib * 2**20, (*files, theirs))
            finally:
                os.close(theirs)
            text = _read(answer, timeout_s + _PATIENCE_S)
        if not text:
            return Result(success=False, stdout="", stderr="the sandbox gave no answer")
        return Result(**json.loads(text))

    @property
    def walls(self) -> tuple[str, ...]:
        """What confines a program here, beside resource limits: "user namespaces", "Landlock", "seccomp"."""
        with self._lock:
            return self._started().walls

    @property
    def is_isolated(self) -> bool:
        """Whether a hostile program can neither reach the network, nor other processes, nor files outside."""
        return "seccomp" in self.walls and len(self.walls) > 1

    def close(self) -> None:
        with self._lock:
            if self._zygote:
                self._zygote.close()
            self._zygote = None

    def _started(self) -> _Zygote:
        if self._zygote and not self._zygote.is_usable:
            self._zygote.close()
            self._zygote = None
        if not self._zygote:
            self._zygote = _Zygote.start(self._namespaces)
        return self._zygote


class _Zygote:
    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, walls: tuple[str, ...]) -> None:
        self.walls = walls
        self._process, self._control, self._owner = process, control, os.getpid()

    @classmethod
    def start(cls, namespaces: bool) -> _Zygote:
        for mode in ("namespaces", "plain") if namespaces else ("plain",):
            ours, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _START]
                process = subprocess.Popen(
                    [*command, str(_LIBRARY), str(theirs.fileno()), mode],
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": tempfile.gettempdir()},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL if mode == "namespaces" else None,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            with ours.makefile("rb") as hello:
                line = hello.readline().decode()
            if line.endswith("\n"):
                return cls(process, ours, tuple(filter(None, line.strip().split(","))))
            ours.close()
            process.wait()
        raise RuntimeError(f"the sandbox did not start (exit code {process.returncode})")

    @property
    def is_usable(self) -> bool:
        """False once it has died, and in a fork of the process that started it."""
        return self._owner == os.getpid() and self._process.poll() is None

    def send(self, seconds: float, memory: int, files: tuple[int, ...]) -> None:
        socket.send_fds(self._control, [JOB.pack(seconds, memory)], files)

    def close(self) -> None:
        self._control.close()
        if self._owner == os.getpid():
            self._process.wait()


default = Sandbox()
run = default.run
atexit.register(default.close)


def _file(stack: contextlib.ExitStack, text: str) -> int:
    # A file rather than the command line: programs can be long, and `ps` shows command lines to every user.
    file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    file.write(text.encode("utf-8", "surrogatepass"))
    file.seek(0)
    return file.fileno()


def _read(fd: int, patience_s: float) -> bytes:
    """All that the keeper writes; nothing when it writes nothing in time."""
    text = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while poll.poll(1000 * patience_s):
        data = os.read(fd, 65536)
        if not data:
            return text
        text += data
    return b""
