"""The supervisor: starts servers in waves, restarts those that crash, stops them in the reverse order.

It has one thread, because a child lives only as long as the thread that started it (see `launch`). The first SIGTERM or
SIGINT asks for an orderly stop; the second one kills the servers that still drain.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from services.standalone import tree
from services.standalone.child import StartError, appended, not_started, spawn, stop

# A server that ends is noticed at once, and one that is slow is named every few seconds, so this bounds only one that hangs.
# Importing torch takes seconds on an idle machine, minutes on a crowded one.
START_S = 300.0
SLOW_S = 5.0  # after this long, the servers we still wait for are named
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STEADY_S = 60.0  # after this long without a crash, earlier ones no longer lengthen the pause


class Server(Protocol):
    """A server process. `start` may return before the server answers; `is_ready` tells when it does."""

    name: str
    log: Path
    process: subprocess.Popen[bytes] | None

    def start(self) -> object: ...
    def is_ready(self) -> bool: ...
    def stop(self) -> None: ...


class Program:
    """One of our own Python services, run with exactly the environment `env`. After SIGTERM it has `grace_s` to finish."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Callable[[], Mapping[str, str]],
        log: Path,
        ready: Callable[[], bool],
        grace_s: float = 10.0,
    ):
        self.name, self.log = name, log
        self.process: subprocess.Popen[bytes] | None = None
        self._argv, self._env, self._ready, self._grace_s = list(argv), env, ready, grace_s

    def start(self) -> None:
        with appended(self.log) as log:
            self.process = spawn([sys.executable, *self._argv], log=log, die_with=signal.SIGTERM, env=self._env())

    def is_ready(self) -> bool:
        return self._ready()

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, [(signal.SIGTERM, self._grace_s)])


@dataclass
class Health:
    """What the supervisor remembers about one server."""

    server: Server
    started_at: float
    crashes: int = 0
    restart_at: float | None = None


class Stack:
    """`with Stack(waves).started(): …` runs the servers of every wave once those of the wave before are ready."""

    def __init__(self, waves: Sequence[Sequence[Server]], say: Callable[[str], None] = print):
        self._waves, self._say = waves, say
        self._health: list[Health] = []
        self._stop_asked = False

    @property
    def pids(self) -> dict[str, int]:
        return {h.server.name: h.server.process.pid for h in self._health if h.server.process is not None}

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Start all servers and wait until they are ready. Stop them when the block ends or the start fails.

        Raises StartError with the end of the log of the server that did not come up. Raises KeyboardInterrupt when a stop is
        asked for during the start.
        """
        tree.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            for wave in self._waves:
                self._start(wave)
            yield
        finally:
            self._stop_asked = True
            self._stop()

    def supervise(self, changed: Callable[[], None]) -> None:
        """Restart servers that crash, each time after a longer pause, until a stop is asked for.

        `changed` is called when pids have changed.
        """
        while not self._stop_asked:
            tree.reap_adopted(self.pids.values())
            for health in self._health:
                self._look_after(health, changed)
            time.sleep(0.2)

    # -- starting --

    def _start(self, wave: Sequence[Server]) -> None:
        began = time.monotonic()
        for server in wave:
            server.start()
            self._health.append(Health(server, time.monotonic()))
            self._check_stop()
        waiting, named_at = list(wave), began
        while waiting:
            self._check_stop()
            for server in list(waiting):
                # Look at the process first: when it is dead, another program may answer on its port.
                if server.process is None or server.process.poll() is not None or time.monotonic() > began + START_S:
                    raise not_started(server.name, server.process, server.log, time.monotonic() - began)
                if server.is_ready():
                    waiting.remove(server)
                    self._say(f"  ✓ {server.name:<11} {time.monotonic() - began:5.1f} s")
            if waiting and time.monotonic() > named_at + SLOW_S:
                named_at = time.monotonic()
                self._say(f"  … waiting for {' and '.join(s.name for s in waiting)}, {named_at - began:.0f} s so far")
            time.sleep(0.1)

    # -- looking after --

    def _look_after(self, health: Health, changed: Callable[[], None]) -> None:
        server, now = health.server, time.monotonic()
        if health.restart_at is None:
            if server.process is not None and (code := server.process.poll()) is not None:
                self._crashed(health, f"ended with status {code}")
            elif now > health.started_at + STEADY_S:
                health.crashes = 0
        elif now >= health.restart_at:
            health.restart_at, health.started_at = None, now
            try:
                server.start()
            except StartError as err:
                self._crashed(health, f"did not start: {err}")
            else:
                changed()

    def _crashed(self, health: Health, how: str) -> None:
        server = health.server
        server.stop()  # ends what is left of its process group
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**health.crashes)
        health.crashes += 1
        health.restart_at = time.monotonic() + pause
        self._say(f"  ! {server.name} {how}; starting it again in {pause:.1f} s (see {server.log})")

    # -- stopping --

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop_asked:
            for health in self._health:
                if health.server.process is not None and health.server.process.poll() is None:
                    health.server.process.send_signal(signal.SIGKILL if isinstance(health.server, Program) else signal.SIGQUIT)
        self._stop_asked = True

    def _check_stop(self) -> None:
        if self._stop_asked:
            raise KeyboardInterrupt

    def _stop(self) -> None:
        running = {health.server.name for health in self._health}
        for wave in reversed(self._waves):
            with ThreadPoolExecutor() as together:
                list(together.map(lambda server: server.stop(), [s for s in wave if s.name in running]))
        if killed := tree.end_all(seconds=2):
            self._say(f"  ! killed processes that the servers left behind: {', '.join(sorted(set(killed)))}")
