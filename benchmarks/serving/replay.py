"""`python -m benchmarks.serving.replay FD`: in place of an engine process, answers every order with prepared tokens at a fixed pace.

It shows what the HTTP process costs by itself. A prompt takes no time: its first token comes at once if no row is running,
otherwise with the next step.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from random import Random

from nanochat.engine.request import FORCED, SAMPLED
from services.inference.engines.launch import Process
from services.inference.engines.wire import Cancel, Frames, Gauges, Hello, Load, Loaded, Row, Setup, Step, Submit, frame

STEP_MS = "NANOCHAT_BENCH_STEP_MS"  # milliseconds from one step to the next
IDS = "NANOCHAT_BENCH_IDS"  # bounds of the tokens
CONTEXT = 2048


def launch(device: int | None) -> tuple[socket.socket, Process]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "benchmarks.serving.replay", str(theirs.fileno())]
        return ours, Process(subprocess.Popen(command, pass_fds=[theirs.fileno()]))


def serve(link: socket.socket) -> None:
    """Answer the commands of `link` until the other end closes it."""
    step_s = float(os.environ[STEP_MS]) / 1000
    low, high = map(int, os.environ[IDS].split(","))
    rng = Random(1)
    tokens = [rng.randrange(low, high) for _ in range(4096)]
    frames, left = Frames(), {}  # id of the request: tokens that it still gets
    due, steps = time.monotonic(), 0
    while True:
        now = time.monotonic()
        link.settimeout(max(due - now, 1e-6) if left else 1.0)
        try:
            data = link.recv(1 << 20)
            if not data:
                return
        except TimeoutError:
            data = b""
        for message in frames.feed(data):
            match message:
                case Setup():
                    _send(link, Hello("replay", 1))
                case Load(model):
                    _send(link, Loaded(model, CONTEXT))
                case Submit(id, order):
                    if not left:
                        due = time.monotonic()
                    left[id] = order.max_tokens
                case Cancel(id):
                    left.pop(id, None)
        if left and time.monotonic() < due:
            continue
        rows: list[Row] = []
        for id, more in list(left.items()):
            rows.append((id, 0, tokens[(steps + 7 * id) % len(tokens)], SAMPLED, None, None))
            left[id] = more - 1
            if more == 1:
                rows.append((id, 0, None, FORCED, "length", None))
                del left[id]
        steps += 1
        _send(link, Step(rows, [], Gauges(running=len(left), steps=steps)))
        due = max(due + step_s, time.monotonic())


def _send(link: socket.socket, report: Hello | Loaded | Step) -> None:
    link.settimeout(None)
    link.sendall(frame(report))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
