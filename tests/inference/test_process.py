"""`python -m services.inference` as a process: its settings, its error messages, its shutdown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from nanochat.contract.contract import Artifact
from tests.inference.heart import SELF, WHO
from tests.inference.server import wait_for

ROOT = Path(__file__).parents[2]
START_S = 240.0  # importing torch takes seconds on an idle machine, minutes on a crowded one


def command(*args: object, **env: str) -> subprocess.Popen[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "services.inference", *map(str, args)],
        cwd=ROOT,
        env={**clean, **env},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_checkpoint_on_disk_is_served_with_no_control_api(model_artifact: Artifact, tokenizer_artifact: Artifact) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = command("--model", model_artifact.path, "--tokenizer", tokenizer_artifact.path, "--port", port, "--device", "cpu")
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(
            lambda: _status(f"{url}/ready") == 200,
            "ready",
            START_S,
        )
        body = {"messages": [{"role": "user", "content": WHO}], "temperature": 0}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=30).json()
        assert answer["choices"][0]["message"]["content"] == SELF
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        ((), {}, "no source of models"),
        (("--model", "/nowhere"), {}, "belong together"),
        (("--model", "/nowhere", "--tokenizer", "/nowhere"), {}, "not a sealed artifact"),
        (("--host", "0.0.0.0"), {"NANOCHAT_API_URL": "http://127.0.0.1:1"}, "NANOCHAT_API_KEY"),
        (("--port", "99999"), {"NANOCHAT_API_URL": "http://127.0.0.1:1"}, "port"),
    ],
)
def test_bad_settings_end_it_with_a_message(args: tuple[str, ...], env: dict[str, str], said: str) -> None:
    process = command(*args, **env)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 64
    assert said in stderr
    assert "Traceback" not in stderr


def test_the_http_process_imports_no_torch() -> None:
    imports = "import sys, services.inference.app, services.inference.serve; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", imports], cwd=ROOT, check=True, timeout=60)


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.TransportError:
        return 0
