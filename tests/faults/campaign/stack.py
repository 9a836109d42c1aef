"""The platform under faults: real services and servers, each behind its own proxies, restarted when they die."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import redis

from controlplane import db
from services.standalone.child import appended, spawn
from services.standalone.embedded import Command
from services.standalone.identity import environment
from services.standalone.ports import free_port
from services.standalone.postgres import Postgres
from services.standalone.valkey import Valkey
from tests.faults.campaign.clock import Clocks
from tests.faults.campaign.proxy import Link

HERE = Path(__file__).parent
HOME_BYTES = 192 << 20
KEPT_BYTES = 1 << 20  # of a file of a stack that failed
POLL_S = 0.1
PATIENCE_S = 300.0  # with a machine that does ten times as much at once
RESTART_S = 0.2  # a service manager's pause before it starts a dead service again
GPUS = "#!/bin/sh\necho 'NVIDIA Pretend'\necho 'NVIDIA Pretend'\n"  # two ranks, without a GPU
ONE_OF_TWO = {"NANOCHAT_NODES": "2", "NANOCHAT_ADDRESS": "127.0.0.1", "NANOCHAT_GPUS": "1"}

T = TypeVar("T")


@dataclass(frozen=True)
class How:
    """How a service is started."""

    arguments: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def worker(cls, name: str, **env: str) -> How:
        return cls(("worker", "--queue", "gpu"), {"NANOCHAT_WORKER_ID": name, **env})


SERVICES = {
    "api": How(("api",)),
    "api-2": How(("api",)),
    "worker": How.worker("worker"),
    "worker-2": How.worker("worker-2"),
    "node-1": How.worker("node-1", **ONE_OF_TWO),
    "node-2": How.worker("node-2", **ONE_OF_TWO),
}


class Service:
    """One of our own processes, with its own way to Postgres and to Valkey."""

    def __init__(self, stack: Stack, name: str, *arguments: str, **env: str):
        self.name, self.arguments, self.log = name, arguments, stack.folder / f"{name}.log"
        self.port = free_port() if name.startswith("api") else None
        self.postgres, self.valkey = Link(stack.postgres_port), Link(stack.valkey_port)
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts, self._died_at = 0, 0.0
        self.env = {
            **os.environ,
            "NANOCHAT_DATABASE_URL": _through(stack.postgres.url, stack.postgres_port, self.postgres),
            "NANOCHAT_REDIS_URL": _through(stack.valkey.url, stack.valkey_port, self.valkey),
            "NANOCHAT_HOME": str(stack.home),
            "NANOCHAT_PORT": str(self.port or 0),
            "NANOCHAT_LEASE_TTL_S": "4",
            "NANOCHAT_SYNC_EVERY_S": "0.1",
            "NANOCHAT_HEARTBEAT_EVERY_S": "0.3",
            "NANOCHAT_STOP_GRACE_S": "4",
            "NANOCHAT_KILL_GRACE_S": "1",
            "PATH": f"{stack.folder}:{os.environ['PATH']}",
            "PYTHONPATH": f"{HERE / 'shim'}:{HERE.parents[2]}:{HERE.parents[2] / 'libs'}",
            "OMP_NUM_THREADS": "1",
            **stack.clocks.env(name),
            **env,
        }

    def start(self) -> None:
        with appended(self.log) as log:
            command = [sys.executable, "-m", "tests.faults.campaign.service", *self.arguments]
            self.process = spawn(command, log=log, die_with=signal.SIGKILL, env=self.env)

    def tree(self) -> list[psutil.Process]:
        if self.process is None:
            return []
        try:
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def look_after(self) -> None:
        """Start it again when it has died."""
        if self.process is None or self.process.poll() is None:
            return
        self._died_at = self._died_at or time.monotonic()
        if time.monotonic() > self._died_at + RESTART_S:
            self.restarts, self._died_at = self.restarts + 1, 0.0
            self.start()

    def end(self) -> None:
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self.process is not None:
            self.process.wait()
        self.process = None


class ClockedPostgres(Postgres):
    """Postgres with a clock of its own."""

    def __init__(self, folder: Path, port: int, clock: dict[str, str]):
        super().__init__(folder, port)
        self._clock = clock

    def command(self, port: int) -> Command:
        return replace(super().command(port), env={**environment(), **self._clock})


class Stack:
    """`home` is a small file system of its own where this machine lets us mount one; `mounted` tells."""

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        self.mounted = _mount("-t", "tmpfs", "-o", f"size={HOME_BYTES}", "tmpfs", str(self.home))
        tool = folder / "nvidia-smi"
        tool.write_text(GPUS)
        tool.chmod(0o755)
        self.postgres_port, self.valkey_port = free_port(), free_port()
        self.clocks = Clocks(("postgres", *SERVICES))
        self.postgres = ClockedPostgres(folder / "postgres", self.postgres_port, self.clocks.env("postgres"))
        self.valkey = Valkey(folder / "valkey", self.valkey_port)
        self.postgres.start()
        self.valkey.start()
        db.migrate(self.postgres.url)
        self.engine = db.make_engine(self.postgres.url)
        self.factory = db.sessions(self.engine)
        self.watcher: Callable[[], object] = lambda: None  # is called again and again while the campaign waits
        self.services = {name: Service(self, name, *how.arguments, **how.env) for name, how in SERVICES.items()}

    def lacks(self, need: str) -> str:
        """Why a fault with that need cannot be inflicted here; empty if it can."""
        if need == "mount" and not self.mounted:
            return "this machine does not let us mount a file system"
        if need == "clock" and not self.clocks.work:
            return "this machine has no C compiler for the clock"
        return ""

    def use(self, *names: str) -> None:
        """Run exactly these services, and wait until they are ready. The servers run as well."""
        for name, service in self.services.items():
            if name not in names:
                service.end()
            elif service.process is None:
                service.start()
        self.wait(lambda: all(self.ready(name) for name in names), "the services", PATIENCE_S)

    def ready(self, name: str) -> bool:
        service = self.services[name]
        if service.port is not None:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{service.port}/ready", timeout=2).is_success
            return False
        _, _, latest = service.log.read_text(errors="replace").rpartition("--- started ")
        return " ready." in latest

    def wait(self, condition: Callable[[], T], what: str, seconds: float) -> T:
        """Wait for the condition, and restart in the meantime what has died. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            self.look_after()
            self.watcher()
            if value := condition():
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:.0f} s for {what}")
            time.sleep(POLL_S)

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "time to pass", seconds + 60)

    def look_after(self) -> None:
        for server in (self.postgres, self.valkey):
            if server.process is not None and server.process.poll() is not None:
                server.stop()
                server.start()
        for service in self.services.values():
            service.look_after()

    def flush(self) -> None:
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def mend(self) -> None:
        """Undo what a fault may have left."""
        self.clocks.mend()
        for service in self.services.values():
            service.postgres.mend()
            service.valkey.mend()
            for process in service.tree():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def close(self, keep: Path | None = None) -> None:
        """With `keep`, the logs of the services and the files of the runs are copied there first."""
        self.mend()
        for service in self.services.values():
            service.end()
            service.postgres.close()
            service.valkey.close()
        self.engine.dispose()
        self.valkey.stop()
        self.postgres.stop()
        self.clocks.close()
        if keep is not None:
            for path in (*self.folder.glob("*.log"), *self.folder.glob("home/runs/*/*/attempt-*/*")):
                if path.is_file() and path.stat().st_size < KEPT_BYTES:
                    (kept := keep / path.relative_to(self.folder)).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, kept)
        if self.mounted:
            unmount(self.home)
        shutil.rmtree(self.folder, ignore_errors=True)


def read_only(folder: Path) -> None:
    """Make everything below `folder` read-only until `unmount(folder)`, even for root. Raises OSError if it cannot be mounted."""
    if not (_mount("--bind", str(folder), str(folder)) and _mount("-o", "remount,bind,ro", str(folder))):
        raise OSError(f"{folder} cannot be mounted read-only, though the campaign's own file system could be mounted")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def _mount(*arguments: str) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode == 0


def _through(url: str, port: int, link: Link) -> str:
    return url.replace(f"127.0.0.1:{port}", f"127.0.0.1:{link.port}")
