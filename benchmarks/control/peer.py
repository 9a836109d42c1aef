"""MLflow's tracking server on the same Postgres, installed from PyPI into a folder of its own and used over its REST API."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks.control.fill import KEYS
from benchmarks.control.stack import free_port, served
from benchmarks.process import ROOT, JobError

VERSION = "3.17.2"
NAME = f"MLflow {VERSION}"
BATCH = 1000  # metrics of one request, the most that MLflow takes


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
def running(database: str, folder: Path) -> Iterator[httpx.Client]:
    target, port = installed(), free_port()
    command = [str(target / "bin" / "mlflow"), "server", "--backend-store-uri", database]
    command += [
        "--artifacts-destination",
        str(folder / "artifacts"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "2",
    ]
    url = f"http://127.0.0.1:{port}"
    path = {"PATH": f"{target / 'bin'}:/usr/bin:/bin"}
    with (
        served(command, path, f"{url}/health", folder / "mlflow.log"),
        httpx.Client(base_url=f"{url}/api/2.0/mlflow", timeout=120) as http,
    ):
        yield http


def write(http: httpx.Client, steps: int) -> tuple[str, float]:
    """Log the points of as many steps as our own spool has. Returns the run and points per second."""
    made = http.post("/runs/create", json={"experiment_id": "0", "start_time": 0}).raise_for_status().json()
    run_id: str = made["run"]["info"]["run_id"]
    metrics = [
        {"key": key, "value": 1.0 / (step + n + 1), "timestamp": 1_700_000_000_000 + 1000 * step, "step": step}
        for step in range(steps)
        for n, key in enumerate(KEYS)
    ]
    begun = time.monotonic()
    for start in range(0, len(metrics), BATCH):
        http.post("/runs/log-batch", json={"run_id": run_id, "metrics": metrics[start : start + BATCH]}).raise_for_status()
    return run_id, len(metrics) / (time.monotonic() - begun)


def read(http: httpx.Client, run_id: str, keys: int) -> float:
    """Milliseconds to read the whole history of some metrics, of which MLflow has no buckets."""
    begun = time.monotonic()
    for key in KEYS[:keys]:
        http.get("/metrics/get-history", params={"run_id": run_id, "metric_key": key}).raise_for_status()
    return 1000 * (time.monotonic() - begun)
