"""MLflow's tracking server on the same Postgres, installed from PyPI into a folder of its own and used over its REST API."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from benchmarks.control.fill import KEYS
from benchmarks.control.stack import Meter, execute, has_database, served, server_pid
from benchmarks.process import ROOT, JobError
from services.standalone.ports import free_port
from services.standalone.postgres import Postgres

VERSION = "3.17.2"
NAME = f"MLflow {VERSION}"
BATCHES = (100, 1000)  # metrics of one request; MLflow takes 1000 at most
CLIENTS = (1, 4)  # that log at the same time, each its own run
DATABASE = "peer"

# The runs of the list, and the series that charts show. Filling its ten million rows as well would only slow it down.
_RUNS = """
INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time, source_version,
                  lifecycle_stage, artifact_uri, experiment_id)
SELECT md5(n::text), 'bench ' || n, 'LOCAL', '', '', 'bench', 'RUNNING', 1700000000000 + n, '', 'active', '/tmp/none', 0
FROM generate_series(1, %(runs)s) AS n
"""
_METRICS = """
INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
SELECT 'metric_' || k, sin(step * 0.01 + k), 1700000000000 + 1000 * step, md5('1'), step, false
FROM generate_series(0, 7) AS k, generate_series(0, %(long)s - 1) AS step
"""
_LATEST = """
INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
SELECT 'metric_' || k, 1, 1700000000000, 1, false, run_uuid FROM runs, generate_series(0, 7) AS k
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """`run` is the one with the long series."""

    http: httpx.Client
    meter: Meter
    run: str


def installed() -> Path:
    """The folder of its environment. Raises JobError when it cannot be installed."""
    target = ROOT / ".peers" / f"mlflow-{VERSION}"
    if not (target / "complete").exists():
        uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
        packages = [f"mlflow=={VERSION}", "psycopg[binary]"]
        python = str(target / "bin" / "python")
        for command in (
            [uv, "venv", "-q", "--clear", "--python", sys.executable, str(target)],
            [uv, "pip", "install", "-q", "--python", python, *packages],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise JobError(f"{NAME} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        (target / "complete").touch()
    return target


@contextlib.contextmanager
def running(postgres: Postgres, folder: Path, runs: int, long: int) -> Iterator[Peer]:
    """The server with as many runs as our ledger and with its long series, in a database that a later benchmark uses again."""
    target, port = installed(), free_port()
    if not has_database(postgres, DATABASE):
        execute(postgres, f"CREATE DATABASE {DATABASE}")
    dsn = postgres.dsn.rsplit("/", 1)[0] + f"/{DATABASE}"
    command = [str(target / "bin" / "mlflow"), "server", "--backend-store-uri", dsn.replace("://", "+psycopg://", 1)]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    # Without the option, a worker that does not answer within 5 s on a busy machine is killed.
    command += ["--workers", "2", "--uvicorn-opts", "--timeout-worker-healthcheck 120"]
    url = f"http://127.0.0.1:{port}"
    path = {"PATH": f"{target / 'bin'}:/usr/bin:/bin"}
    with (
        served(command, path, f"{url}/health", folder / "mlflow.log") as pid,
        httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=300) as http,
    ):
        yield Peer(http, Meter(pid, server_pid(postgres)), _fill(dsn, runs, long))


def _fill(dsn: str, runs: int, long: int) -> str:
    sizes = {"runs": runs, "long": long}
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT count(*) FROM metrics WHERE run_uuid = md5('1')").fetchone()
        if found != (len(KEYS) * long,):
            connection.execute("TRUNCATE metrics, latest_metrics, runs CASCADE")
            for statement in (_RUNS, _METRICS, _LATEST):
                connection.execute(statement.encode(), sizes)
        run = connection.execute("SELECT md5('1')").fetchone()
    assert run is not None
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    return str(run[0])


def listed(peer: Peer, limit: int) -> httpx.Response:
    wanted = {"experiment_ids": ["0"], "max_results": limit, "order_by": ["attributes.start_time DESC"]}
    return peer.http.post("/runs/search", json=wanted)


def page(peer: Peer) -> httpx.Response:
    return peer.http.get("/runs/get", params={"run_id": peer.run})


def chart(peer: Peer, keys: int) -> httpx.Response:
    """As MLflow's own charts ask: a sample of each series."""
    for key in KEYS[:keys]:
        wanted = {"run_ids": peer.run, "metric_key": key, "max_results": 500}
        answer = peer.http.get("/metrics/get-history-bulk-interval", params=wanted).raise_for_status()
    return answer


def history(peer: Peer, keys: int) -> httpx.Response:
    """Each series as a whole, which a client reads before it reduces it."""
    for key in KEYS[:keys]:
        answer = peer.http.get("/metrics/get-history", params={"run_id": peer.run, "metric_key": key}).raise_for_status()
    return answer


def submit(peer: Peer) -> str:
    made = peer.http.post("/runs/create", json={"experiment_id": "0", "start_time": 0}).raise_for_status().json()
    return str(made["run"]["info"]["run_id"])


def logged(peer: Peer, steps: int) -> tuple[float, str]:
    """Points per second of all clients together, at the best of BATCHES and CLIENTS, and which those were."""
    found = []
    for size in BATCHES:
        for clients in CLIENTS:
            runs = [submit(peer) for _ in range(clients)]
            begun = time.monotonic()
            with ThreadPoolExecutor(clients) as pool:
                count = sum(pool.map(lambda run, size=size, clients=clients: _log(peer, run, steps // clients, size), runs))
            found.append((count / (time.monotonic() - begun), f"{clients} clients, batches of {size}"))
    return max(found)


def _log(peer: Peer, run_id: str, steps: int, size: int) -> int:
    metrics: list[dict[str, Any]] = [
        {"key": key, "value": 1.0 / (step + n + 1), "timestamp": 1_700_000_000_000 + 1000 * step, "step": step}
        for step in range(steps)
        for n, key in enumerate(KEYS)
    ]
    with httpx.Client(base_url=peer.http.base_url, timeout=300) as http:
        for start in range(0, len(metrics), size):
            http.post("/runs/log-batch", json={"run_id": run_id, "metrics": metrics[start : start + size]}).raise_for_status()
    return len(metrics)
