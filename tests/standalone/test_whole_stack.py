"""`up` with every real service: it describes itself, restarts a crashed service, and ends when its supervisor is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from client import Client
from tests.waiting import until

from .processes import environment, gone

ROOT = Path(__file__).parents[2]
SERVICES = {"postgres", "valkey", "api", "worker-gpu", "worker-cpu", "inference", "ui"}


def below(home: Path) -> list[psutil.Process]:
    """Every process with this home in its environment, wherever it is in the process tree."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("NANOCHAT_HOME") == str(home) and not gone(process.pid):
                found.append(process)
    return found


@pytest.mark.slow
def test_a_crashed_service_comes_back_and_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command = [sys.executable, "-m", "services.standalone", "up"]
    env = {**environment(), "NANOCHAT_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "up.log").open("wb") as log:
        console = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: (home / "stack.json").exists() or console.poll() is not None, "the stack", 150)
        assert console.poll() is None, (tmp_path / "up.log").read_text()
        stack = described(home)
        assert set(stack["pids"]) == SERVICES | {"console", "supervisor"}
        assert not gone(*stack["pids"].values())
        client = Client(stack["api_url"], Path(stack["key_file"]).read_text().strip())
        assert {worker.queue for worker in client.workers()} == {"cpu", "gpu"}
        assert httpx.get(f"{stack['inference_url']}/health").is_success
        page = httpx.get(stack["ui_url"], follow_redirects=True, headers={"Accept": "text/html"})
        assert (page.status_code, page.url.path) == (200, "/signin")

        os.kill(stack["pids"]["api"], signal.SIGKILL)
        until(lambda: described(home)["pids"]["api"] != stack["pids"]["api"], "a new API process")
        until(client.is_ready, "the new API", 60)

        os.kill(stack["pids"]["supervisor"], signal.SIGKILL)
        assert console.wait(60) == 1
        assert not below(home)
        assert not (home / "stack.json").exists()
    finally:
        console.kill()
        console.wait()
        for process in below(home):
            process.kill()


def described(home: Path) -> dict[str, Any]:
    return dict(json.loads((home / "stack.json").read_text()))
