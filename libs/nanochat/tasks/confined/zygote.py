"""The process that all programs are forked from. It has imported what they need and runs no code of a model.

It reads jobs from a socket: sixteen bytes (seconds, memory), with the files of the program, the test and the answer. It ends
when the socket does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys

from nanochat.tasks.confined import keeper, kernel, namespaces, walls

JOB = struct.Struct("=dQ")
# What programs import often; each process has them without importing them again.
_LIBRARY = (
    "abc bisect collections copy dataclasses datetime decimal enum fractions functools hashlib heapq io itertools json math"
    " operator random re statistics string tempfile textwrap time traceback typing tokenize linecache"
)


def main(control: socket.socket, in_namespaces: bool) -> None:
    """Serve jobs. The first message that it sends is the walls it has, separated by commas. Raises OSError."""
    for name in _LIBRARY.split():
        __import__(name)
    if in_namespaces:
        namespaces.enter()
    offered = walls.offered(in_namespaces)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries its children
    control.sendall(",".join(offered).encode() + b"\n")
    while True:
        message, files, _, _ = socket.recv_fds(control, JOB.size, 3)
        if len(message) < JOB.size:
            return
        if not os.fork():
            _keep(control, message, files, offered)
        for fd in files:
            os.close(fd)


def _keep(control: socket.socket, message: bytes, files: list[int], offered: tuple[str, ...]) -> None:
    try:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if sys.platform == "linux":
            kernel.prctl(kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
        seconds, memory = JOB.unpack(message)
        source, test, answer = files
        keeper.keep((source, test, answer), seconds, memory, offered)
    except BaseException as err:
        with contextlib.suppress(BaseException):
            sys.stderr.write(f"the sandbox failed: {type(err).__name__}: {err}\n")
            sys.stderr.flush()
    finally:
        os._exit(0)
