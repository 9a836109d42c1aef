"""Runs the `nanochat` command as a process, piped or on a pseudo-terminal of a given width."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [str(Path(sys.executable).with_name("nanochat"))]
ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
PATIENCE_S = 240.0


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str = ""

    @property
    def lines(self) -> list[str]:
        """The lines as a person sees them, without colours."""
        return [line.rstrip() for line in ESCAPE.sub("", self.out).replace("\r", "").splitlines()]

    @property
    def widest(self) -> int:
        return max((len(line) for line in self.lines), default=0)


def piped(*arguments: str, typed: str | None = None, **environment: str) -> Done:
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env=_environment(environment),
        input=typed,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Terminal:
    """A running command with a pseudo-terminal for its stdin, stdout and stderr."""

    def __init__(self, arguments: tuple[str, ...], columns: int, environment: dict[str, str]):
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.shown, self._found = "", 0
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=ROOT,
            env=_environment(environment) | {"TERM": "xterm-256color"},
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C on it is a signal
        )
        os.close(far)

    def type(self, text: str) -> None:
        os.write(self._near, text.encode())

    def wait_for(self, text: str, seconds: float = PATIENCE_S) -> None:
        """Read until `text` has been shown, after what the last call has waited for."""
        deadline = time.monotonic() + seconds
        while (at := ESCAPE.sub("", self.shown).find(text, self._found)) < 0:
            assert time.monotonic() < deadline, f"{text!r} was not shown:\n{self.shown}"
            assert self._read(0.1), f"the command ended before {text!r}:\n{self.shown}"
        self._found = at + len(text)

    def end(self, seconds: float = PATIENCE_S) -> Done:
        """Read to the end."""
        deadline = time.monotonic() + seconds
        while self._read(0.1):
            assert time.monotonic() < deadline, f"the command does not end:\n{self.shown}"
        return Done(self.process.wait(timeout=10), self.shown)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)
        os.close(self._near)

    def _read(self, seconds: float) -> bool:
        """False at the end of the output."""
        if select.select([self._near], [], [], seconds)[0]:
            try:
                data = os.read(self._near, 65536)
            except OSError:  # the last process has closed the terminal
                return False
            self.shown += data.decode(errors="replace")
            return bool(data)
        return True


@contextlib.contextmanager
def terminal(*arguments: str, columns: int = 120, **environment: str) -> Iterator[Terminal]:
    running = Terminal(arguments, columns, environment)
    try:
        yield running
    finally:
        running.close()


def on_terminal(*arguments: str, columns: int = 120, **environment: str) -> Done:
    with terminal(*arguments, columns=columns, **environment) as running:
        return running.end()


def _environment(more: dict[str, str]) -> dict[str, str]:
    """That of this process, but for what a test wants to be absent: an empty value."""
    found = {**os.environ, **more}
    found.pop("COLUMNS", None)
    return {name: value for name, value in found.items() if value or name not in more}
