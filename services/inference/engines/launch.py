"""Starts engine processes. The HTTP process talks to each over a socket pair."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

STOPS_S = 3.0  # an engine process ends by itself when its socket is closed; after this long it is killed


class Worker(Protocol):
    """What runs the engines at the other end of a socket."""

    def kill(self) -> None: ...

    def join(self) -> None:
        """Wait until it has ended after its socket was closed. Blocks."""


# Starts the engines of one replica. `device` is the number of its GPU, None: the first one, and how many there are is not known.
Launch = Callable[[int | None], tuple[socket.socket, Worker]]


class Process:
    def __init__(self, popen: subprocess.Popen[bytes]):
        self._popen = popen
        self.pid = popen.pid

    def kill(self) -> None:
        self._popen.kill()

    def join(self) -> None:
        try:
            self._popen.wait(STOPS_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def launch(device: int | None) -> tuple[socket.socket, Process]:
    """Start an engine process that sees one GPU only. Blocks for milliseconds."""
    ours, theirs = socket.socketpair()
    with theirs:
        popen = subprocess.Popen(
            [sys.executable, "-m", "services.inference.engines.process", str(theirs.fileno())],
            env={**os.environ, **({} if device is None else {"CUDA_VISIBLE_DEVICES": _visible(device)})},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours, Process(popen)


def _visible(device: int) -> str:
    """The name of the GPU with this number among those that this process may use."""
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return names[device] if device < len(names) else str(device)
