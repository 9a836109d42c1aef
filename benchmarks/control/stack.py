"""The control plane as an operator starts it: Postgres, a broker, and the API as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import psycopg
from sqlalchemy.engine import make_url

from benchmarks.process import ROOT
from controlplane.db import SessionFactory, make_engine, migrate, sessions
from services.standalone.postgres import Postgres
from services.standalone.valkey import Valkey

START_S = 300  # MLflow takes a minute to start on two busy cores


@dataclass(frozen=True, slots=True)
class Stack:
    ledger: SessionFactory
    http: httpx.Client
    url: str
    key: str
    api: psutil.Process
    peer_database: str  # an empty database on the same Postgres


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """The stack, once it answers. It is stopped at the end."""
    folder.chmod(0o711)  # Postgres runs as another user when we are root
    with Postgres(folder / "postgres") as postgres, Valkey(folder / "valkey") as valkey:
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE peer")
        migrate(postgres.url)
        engine = make_engine(postgres.url)
        variables = {
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "HOME": str(folder / "home"),
            "PORT": str(port := free_port()),
        }
        environment = {f"NANOCHAT_{name}": value for name, value in variables.items()}
        url = f"http://127.0.0.1:{port}"
        try:
            with served([sys.executable, "-m", "services.api"], environment, f"{url}/health", folder / "api.log") as api:
                key = (folder / "home" / "keys" / "admin.key").read_text(encoding="utf-8").strip()
                with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
                    peer = make_url(postgres.url).set(database="peer", drivername="postgresql+psycopg")
                    yield Stack(sessions(engine), http, url, key, api, peer.render_as_string(hide_password=False))
        finally:
            engine.dispose()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def served(command: Sequence[str], environment: Mapping[str, str], health: str, log: Path) -> Iterator[psutil.Process]:
    """Run a server from when it answers to the end of the block. Raises RuntimeError with what it said if it does not start."""
    with log.open("wb") as output:
        # A session of its own: some servers start workers, which have to end with them.
        server = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        begun = time.monotonic()
        while not _answers(health):
            if server.poll() is not None or time.monotonic() - begun > START_S:
                raise RuntimeError(f"{command[0]} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield psutil.Process(server.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _answers(health: str) -> bool:
    try:
        return httpx.get(health, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
