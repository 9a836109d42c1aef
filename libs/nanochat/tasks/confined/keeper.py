"""The process that keeps one program: starts it and its judge, gives them their time, and ends both and all that they made."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from nanochat.tasks.confined import judge, kernel, namespaces, program, walls
from nanochat.tasks.confined.folder import remove, too_large
from nanochat.tasks.confined.wire import Channel

OUTPUT_CAP = 64 * 1024  # bytes of stdout and of stderr that are returned
_OUTPUT_LIMIT = 8 * 2**20  # a program that prints more is ended
_WATCH_S = 0.02  # between two looks at the size of its folder, where the file system sets no bound
_FIRST_FREE = 5


def keep(job: tuple[int, int, int], seconds: float, memory: int, offered: tuple[str, ...]) -> None:
    """Run one program with its test and write how it ended, as JSON, to the last of the job's three files."""
    source, test, answer = job
    private = "user namespaces" in offered
    if private:
        namespaces.make_private(walls.FOLDER_BYTES, walls.FOLDER_FILES)
    folder = namespaces.HOME if private else tempfile.mkdtemp(prefix="nanochat-sandbox-")
    try:
        outcome = _Keeper(walls.Limits(seconds, memory, folder, offered)).run(source, test)
    finally:
        if not private:
            remove(folder)
    with os.fdopen(answer, "wb") as file:
        file.write(json.dumps(outcome).encode())


class _Keeper:
    def __init__(self, limits: walls.Limits) -> None:
        self._limits = limits
        self._watched = "user namespaces" not in limits.walls
        self._output: dict[int, bytearray] = {}
        self._printed = 0

    def run(self, source: int, test: int) -> dict[str, Any]:
        stdout, stderr, questions, answers, verdict = (os.pipe() for _ in range(5))
        # The judge first: what is forked later is in a namespace where it has no number, and never saw the test.
        to_judge = (stdout[1], stderr[1], answers[0], questions[1])
        judging = self._fork(to_judge, (test, verdict[1]), _judge)
        if not self._watched:
            kernel.unshare(kernel.CLONE_NEWPID)  # the next child is the first process of its own world, which ends with it
        running = self._fork((stdout[1], stderr[1], questions[0], answers[1]), (source,), _program)
        for fd in (stdout[1], stderr[1], *questions, *answers, verdict[1], source, test):
            os.close(fd)
        self._output = {stdout[0]: bytearray(), stderr[0]: bytearray()}
        try:
            end = self._wait(verdict[0])
        finally:
            for pid in (running, judging):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self._drain()
        texts = [bytes(text).decode("utf-8", "replace") for text in self._output.values()]
        return {
            "success": end == "ok",
            "timeout": end == "timeout",
            "memory": end == "memory",
            "stdout": texts[0],
            "stderr": texts[1],
        }

    def _fork(self, channels: tuple[int, ...], files: tuple[int, ...], main: Callable[..., None]) -> int:
        """Start a process with stdin, stdout, stderr and the two ends of its channel as 0 to 4, and `files` after them."""
        pid = os.fork()
        if pid:
            return pid
        with _LastWords():
            null = os.open(os.devnull, os.O_RDONLY)
            fds = [os.dup2(fd, 100 + i) for i, fd in enumerate((null, *channels, *files))]
            for i, fd in enumerate(fds):
                os.dup2(fd, i)
            os.closerange(len(fds), os.sysconf("SC_OPEN_MAX"))
            os.chdir(self._limits.folder)
            os.environ.update(HOME=self._limits.folder, TMPDIR=self._limits.folder)
            tempfile.tempdir = None  # remembered from the keeper's own folder
            main(self._limits)
        raise AssertionError("the block above ends the process")

    def _wait(self, verdict: int) -> str:
        """The verdict; "timeout", or "output" or "files" when there are too many."""
        deadline, said = time.monotonic() + self._limits.seconds, b""
        poll = select.poll()
        for fd in (verdict, *self._output):
            poll.register(fd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(1000 * min(left, _WATCH_S if self._watched else left)):
                data = os.read(fd, 65536)
                if fd == verdict:
                    said += data
                    if not data:
                        return said.decode() or "error"
                elif not data:
                    poll.unregister(fd)
                else:
                    self._store(fd, data)
            if self._printed > _OUTPUT_LIMIT:
                return "output"
            if self._watched and too_large(self._limits.folder, walls.FOLDER_BYTES, walls.FOLDER_FILES):
                return "files"
        return "timeout"

    def _drain(self) -> None:
        for fd in self._output:
            os.set_blocking(fd, False)
            with contextlib.suppress(BlockingIOError):
                while len(self._output[fd]) < OUTPUT_CAP and (data := os.read(fd, 65536)):
                    self._store(fd, data)

    def _store(self, fd: int, data: bytes) -> None:
        self._printed += len(data)
        self._output[fd] += data[: OUTPUT_CAP - len(self._output[fd])]


def _program(limits: walls.Limits) -> None:
    with os.fdopen(_FIRST_FREE, "rb") as file:
        source = file.read()
    channel = Channel(3, 4)
    walls.raise_walls(limits)
    program.run(source, channel)


def _judge(limits: walls.Limits) -> None:
    with os.fdopen(_FIRST_FREE, "rb") as file:
        test = file.read()
    channel = Channel(3, 4)
    walls.raise_walls(limits)
    end = judge.run(test, channel)
    os.write(_FIRST_FREE + 1, end.encode())


class _LastWords:
    """Leave the process at the end of the block, whatever happens in it; never return into the parent's code."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, _trace: object) -> NoReturn:
        if err is not None and not isinstance(err, EOFError):
            with contextlib.suppress(BaseException):
                sys.stderr.write(f"{kind and kind.__name__}: {err}\n")
                sys.stderr.flush()
        os._exit(err is not None)
