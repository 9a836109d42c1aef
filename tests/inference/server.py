"""The real service under uvicorn on a free loopback port, in a thread of this process."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import uvicorn
from openai import OpenAI

from services.inference.app import create_app
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


@contextmanager
def serving(source: Source, *, api_key: str = KEY, **changes: object) -> Iterator[Server]:
    values = {"api_url": "http://unused", "api_key": api_key, "device": "cpu", "poll_s": 0.05, **changes}
    app = create_app(Settings.model_validate(values), source)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        wait_for(lambda: server.started or not thread.is_alive(), "started")
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60) as http:
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
