"""A service as a process of its own, which a test kills and starts again at the same port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from services.standalone.child import spawn, stop
from services.standalone.ports import free_port
from tests.inference.server import wait_for

START_S = 120.0
ROOT = Path(__file__).parents[2]


@dataclass
class Service:
    """`python -m services.NAME` with the settings given, as environment variables without NANOCHAT_."""

    name: str
    log: Path
    settings: Mapping[str, str]
    port: int = field(default_factory=free_port)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        env = {key: value for key, value in os.environ.items() if not key.startswith("NANOCHAT_")}
        env |= {f"NANOCHAT_{key}": value for key, value in {**self.settings, "PORT": str(self.port)}.items()}
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", f"services.{self.name}"]
            self._process = spawn(argv, log=log, die_with=signal.SIGKILL, env=env, cwd=ROOT)
        wait_for(self._answers, f"answering: see {self.log}", START_S)

    def kill(self) -> None:
        """Without a warning, as a crash would."""
        if self._process is not None:
            stop(self._process, ())
            self._process = None

    def rss(self) -> int:
        """Bytes of memory of its processes."""
        assert self._process is not None
        one = psutil.Process(self._process.pid)
        return sum(process.memory_info().rss for process in (one, *one.children(recursive=True)))

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/health").is_success
        except httpx.TransportError:
            return False


@contextmanager
def running(name: str, folder: Path, **settings: str) -> Iterator[Service]:
    service = Service(name, folder / f"{name}.log", settings)
    try:
        service.start()
        yield service
    finally:
        service.kill()
