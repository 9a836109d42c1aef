"""The service as an operator starts it, on a free port of loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.process import ROOT

START_S = 300


@dataclass(frozen=True)
class Running:
    port: int
    pid: int  # of the HTTP process


@contextlib.contextmanager
def running(
    folder: Path, device: str, max_rows: int, *, module: str = "services.inference", env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The service, once it is ready. It is stopped at the end. Raises RuntimeError with what it said if it ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, "--model", str(folder / "model"), "--tokenizer", str(folder / "tokenizer")]
    command += ["--port", str(port), "--device", device, "--max-running", str(max_rows), "--max-waiting", "1024"]
    log = folder / "service.log"
    with log.open("wb") as output:
        service = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **(env or {})}, stdout=output, stderr=output)
    try:
        url, begun = f"http://127.0.0.1:{port}", time.monotonic()
        while not ready(url):
            if service.poll() is not None or time.monotonic() - begun > START_S:
                raise RuntimeError(f"the service is not ready:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield Running(port, service.pid)
    finally:
        service.send_signal(signal.SIGTERM)
        try:
            service.wait(timeout=60)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
