"""The real service under uvicorn on a free loopback port, in a thread of this process.

Its engines run in a thread each, over the same sockets, unless a test asks for processes: those take seconds to import torch.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
from openai import OpenAI

from services.inference.app import create_app
from services.inference.engines import process
from services.inference.engines.launch import Launch
from services.inference.engines.models import load
from services.inference.serve import Server as Uvicorn
from services.inference.serve import config
from services.inference.settings import Settings
from services.inference.source import Source

KEY = "sk-test"
DEADLINE_S = 60.0


@dataclass(frozen=True)
class Server:
    url: str
    http: httpx.Client
    key: str

    def openai(self) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of those samples of a metric that have these labels."""
        total = 0.0
        for line in self.http.get("/metrics").text.splitlines():
            match = re.match(r"^nanochat_(\w+)(?:\{(.*)\})? (\S+)$", line)
            if match and match[1] == name and all(f'{k}="{v}"' in (match[2] or "") for k, v in labels.items()):
                total += float(match[3])
        return total

    def wait_until_ready(self) -> None:
        wait_for(lambda: self.http.get("/ready").status_code == 200, "ready")

    def wait_until_idle(self) -> None:
        wait_for(lambda: self.metric("num_requests_running") == 0, "idle")


class EngineThread:
    """What `launch` starts as a process, in a thread of this one."""

    def __init__(self, link: socket.socket, load: process.Loader):
        self._link, self._load = link, load
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            process.serve(self._link, gone=lambda: None, load=self._load)
        except process.Broken:
            pass  # a process would end with an exit code
        finally:
            self.kill()
            self._link.close()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._link.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self._thread.join(timeout=20)


def in_thread(device: int | None, load: process.Loader = load) -> tuple[socket.socket, EngineThread]:
    ours, theirs = socket.socketpair()
    return ours, EngineThread(theirs, load)


@contextlib.contextmanager
def serving(source: Source, *, api_key: str = KEY, launch: Launch = in_thread, **changes: object) -> Iterator[Server]:
    values = {"api_url": "http://unused", "api_key": api_key, "device": "cpu", "poll_s": 0.05, **changes}
    settings = Settings.model_validate(values)
    app = create_app(settings, source, launch)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Uvicorn(config(app, settings), drain=lambda: None, abort=lambda: None, drain_s=2)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "started")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        with httpx.Client(base_url=url, headers=headers, timeout=60) as http:
            yield Server(url, http, api_key)
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
    assert not thread.is_alive(), "the service did not stop"


def wait_for(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not {what} within {deadline_s} s"
        time.sleep(0.05)
