"""The processes of the stack: their settings, their readiness checks, and the order in which they start."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx

from client import Client, ClientError
from services.standalone.ports import PORTS, free_port
from services.standalone.postgres import Postgres
from services.standalone.stack import Program, Server
from services.standalone.valkey import Valkey

# A worker kills a stage that is still running after STAGE_STOPS_S. That is well before we kill the worker, after DRAIN_S.
STAGE_STOPS_S, DRAIN_S = 45, 60.0


@dataclass(frozen=True)
class Roster:
    waves: list[list[Server]]
    urls: dict[str, str]
    key_file: Path
    moved: list[str]  # messages about preferred ports that were taken


def roster(home: Path) -> Roster:
    """The whole platform in the folder `home`, not started yet."""
    logs, key_file = home / "logs", home / "keys" / "admin.key"
    ports = {name: free_port(wanted) for name, wanted in PORTS.items()}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    postgres = Postgres(home / "postgres", free_port(), logs / "postgres.log")
    valkey = Valkey(home / "valkey", free_port(), logs / "valkey.log")
    # NANOCHAT_API_KEY in the user's environment belongs to another platform.
    # One engine process: with more, each GPU would keep a model beside the training that runs on all of them.
    shared = (
        {"NANOCHAT_REPLICAS": "1"}
        | {name: value for name, value in os.environ.items() if name != "NANOCHAT_API_KEY"}
        | {
            "NANOCHAT_HOME": str(home),
            "NANOCHAT_HOST": "127.0.0.1",
            "NANOCHAT_API_URL": urls["api"],
            "NANOCHAT_INFERENCE_URL": urls["inference"],
            "NANOCHAT_API_KEY_FILE": str(key_file),
            "NANOCHAT_STOP_GRACE_S": str(STAGE_STOPS_S),
            "PYTHONUNBUFFERED": "1",
        }
    )

    def program(name: str, module: str, *arguments: str, ready: Callable[[], bool], grace_s: float = 10.0) -> Program:
        port = {"NANOCHAT_PORT": str(ports[name])} if name in ports else {}
        return Program(
            name,
            ["-m", module, *arguments],
            env=lambda: {**shared, **port, "NANOCHAT_DATABASE_URL": postgres.url, "NANOCHAT_REDIS_URL": valkey.url},
            log=logs / f"{name}.log",
            ready=ready,
            grace_s=grace_s,
        )

    def worker(queue: str) -> Program:
        seen = _worker_seen(urls["api"], key_file, queue)
        return program(f"worker-{queue}", "services.worker", "--queue", queue, ready=seen, grace_s=DRAIN_S)

    waves: list[list[Server]] = [
        [postgres, valkey],
        [program("api", "services.api", ready=_answers(f"{urls['api']}/ready"))],
        [
            worker("gpu"),
            worker("cpu"),
            program("inference", "services.inference", ready=_answers(f"{urls['inference']}/health"), grace_s=30.0),
            program("ui", "services.ui", ready=_answers(f"{urls['ui']}/ready")),
        ],
    ]
    moved = [
        f"port {wanted} is taken by another program; {name} is at {urls[name]}"
        for name, wanted in PORTS.items()
        if ports[name] != wanted
    ]
    return Roster(waves, urls, key_file, moved)


def home_folder() -> Path:
    return Path(os.environ.get("NANOCHAT_HOME") or ".nanochat").absolute()


def _answers(url: str) -> Callable[[], bool]:
    http = httpx.Client(timeout=2.0)

    def ready() -> bool:
        try:
            return http.get(url).is_success
        except httpx.TransportError:
            return False

    return ready


def _worker_seen(api_url: str, key_file: Path, queue: str) -> Callable[[], bool]:
    """A worker has no port. It is ready when the API has had a heartbeat from a worker of its queue since now."""
    began = time.time()

    @functools.cache
    def client() -> Client:
        return Client(api_url, key_file.read_text(encoding="utf-8").strip())

    def ready() -> bool:
        try:
            return any(w.queue == queue and w.heartbeat_at.timestamp() >= began for w in client().workers())
        except (ClientError, OSError):
            return False

    return ready
