"""The control plane as an operator starts it: a broker, and the API as a process of its own, on a Postgres that is there."""

from __future__ import annotations

import contextlib
import os
import signal
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
from controlplane.db import SessionFactory, make_engine, sessions
from services.standalone.ports import free_port
from services.standalone.postgres import Postgres
from services.standalone.valkey import Valkey

START_S = 300  # MLflow takes a minute to start on two busy cores


@dataclass(frozen=True, slots=True)
class Stack:
    ledger: SessionFactory
    http: httpx.Client
    url: str
    key: str
    api: Meter
    meter: Meter  # of the API and Postgres


class Meter:
    """CPU seconds that some processes have used, with all that they started."""

    def __init__(self, *pids: int):
        self._processes = [psutil.Process(pid) for pid in pids]

    def seconds(self) -> float:
        return sum(self._of(p) for root in self._processes for p in (root, *root.children(recursive=True)))

    @staticmethod
    def _of(process: psutil.Process) -> float:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(times.user + times.system + times.children_user + times.children_system)


@contextlib.contextmanager
def running(postgres: Postgres, database: str, folder: Path) -> Iterator[Stack]:
    """A broker and the API on that database, once it answers. They are stopped at the end."""
    with Valkey(folder / "valkey") as valkey:
        url = url_of(postgres, database)
        engine = make_engine(url)
        variables = {
            "DATABASE_URL": url,
            "REDIS_URL": valkey.url,
            "HOME": str(folder / "home"),
            "PORT": str(port := free_port()),
        }
        environment = {f"NANOCHAT_{name}": value for name, value in variables.items()}
        address = f"http://127.0.0.1:{port}"
        try:
            with served([sys.executable, "-m", "services.api"], environment, f"{address}/health", folder / "api.log") as pid:
                key = (folder / "home" / "keys" / "admin.key").read_text(encoding="utf-8").strip()
                with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
                    yield Stack(sessions(engine), http, address, key, Meter(pid), Meter(pid, server_pid(postgres)))
        finally:
            engine.dispose()


def url_of(postgres: Postgres, database: str) -> str:
    return make_url(postgres.url).set(database=database).render_as_string(hide_password=False)


def server_pid(postgres: Postgres) -> int:
    return int((postgres.cluster / "postmaster.pid").read_text(encoding="utf-8").split()[0])


def execute(postgres: Postgres, *statements: str) -> None:
    """Each on its own, as statements about databases have to be."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def has_database(postgres: Postgres, name: str) -> bool:
    with psycopg.connect(postgres.dsn) as connection:
        return connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is not None


@contextlib.contextmanager
def served(command: Sequence[str], environment: Mapping[str, str], health: str, log: Path) -> Iterator[int]:
    """Run a server from when it answers to the end of the block; yields its process id.

    Raises RuntimeError with what it said if it does not start.
    """
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
        yield server.pid
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
