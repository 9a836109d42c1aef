"""`nanochat doctor` on this machine, with one thing wrong at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from services.standalone.doctor import addresses, gpu, machine
from services.standalone.doctor.__main__ import findings
from services.standalone.doctor.finding import Finding, Level
from services.standalone.valkey import Valkey
from tests.api.server import serving

ROOT = Path(__file__).parents[2]


def one(found: Iterator[Finding], level: Level) -> Finding:
    """The only finding of this level. Whatever is not fine says what to do."""
    listed = list(found)
    assert all(f.remedy for f in listed if f.level is not Level.FINE)
    [match] = [f for f in listed if f.level is level]
    return match


@pytest.fixture
def fake_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that a test writes; it is the first one on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder / "nvidia-smi"


def script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def test_the_whole_command(home: Path) -> None:
    """With nothing but a home. The exit code says whether something is broken, and every broken thing has a remedy."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")} | {"NANOCHAT_HOME": str(home)}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "nanochat"), "doctor"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert {"python", "packages", "driver", "torch", "disk", "permissions", "ports", "clock", "api"} <= {
        line[2:].partition(":")[0] for line in lines
    }, done.stdout + done.stderr
    wrong = [line for line in lines if line.startswith("✗")]
    assert done.returncode == (1 if wrong else 0)
    assert lines[-1] == f"problems: {len(wrong)}, warnings: {sum(line.startswith('!') for line in lines)}"


def test_a_home_that_is_a_file_and_a_key_that_others_read(tmp_path: Path) -> None:
    file = tmp_path / "home"
    file.write_text("")
    assert "NANOCHAT_HOME" in one(machine.permissions(file), Level.BAD).remedy
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "admin.key").write_text("nc_x")
    (tmp_path / "keys" / "admin.key").chmod(0o644)
    assert one(machine.permissions(tmp_path), Level.ODD).remedy == f"chmod 600 {tmp_path}/keys/admin.key"


def test_an_old_python_and_little_shared_memory(tmp_path: Path) -> None:
    assert "3.10.4 is too old" in one(machine.python((3, 10, 4)), Level.BAD).text
    assert "--shm-size" in one(machine.shared_memory(1_000_000), Level.BAD).remedy  # no machine has an exbibyte


def test_a_driver_that_does_not_answer(fake_smi: Path) -> None:
    script(fake_smi, "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'", "exit 9")
    assert "Container Toolkit" in one(gpu.driver(gpu.gpus()), Level.BAD).remedy


def test_gpus_that_torch_does_not_see_or_that_are_hidden(fake_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    script(fake_smi, "echo NVIDIA H100 80GB HBM3", "echo NVIDIA H100 80GB HBM3")
    names = gpu.gpus()
    assert names == ["NVIDIA H100 80GB HBM3"] * 2
    assert "hides all GPUs" in one(gpu.driver(names), Level.ODD).text
    assert "GPU" in one(gpu.torch(names), Level.BAD).text


def test_ports_that_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = one(addresses.ports({"api": port}), Level.ODD)
        assert f"{port} (api) is taken" in found.text
        assert "API_PORT" in found.remedy
    assert "free" in one(addresses.ports({"api": port}), Level.FINE).text


def test_database_and_broker(empty_database_url: str, redis_url: str) -> None:
    assert "migrate" in one(addresses.database(empty_database_url), Level.BAD).remedy
    dead = one(addresses.database("postgresql+psycopg://nanochat@127.0.0.1:1/x"), Level.BAD)
    assert "NANOCHAT_DATABASE_URL" in dead.remedy
    assert one(addresses.broker(redis_url), Level.FINE)
    assert "NANOCHAT_REDIS_URL" in one(addresses.broker("redis://127.0.0.1:1/0"), Level.BAD).remedy


def test_the_api_its_key_and_its_workers(database_url: str, valkey: Valkey, home: Path) -> None:
    with serving(database_url, valkey.url, home) as api:
        assert "key" in one(addresses.api(api.url, "nc_wrong", expected=True), Level.BAD).text
        missing = [f.text for f in addresses.api(api.url, api.key, expected=True) if f.level is Level.BAD]
        assert missing == ["no worker of the queue cpu is alive", "no worker of the queue gpu is alive"]
        assert all(f.level is Level.FINE for f in addresses.clock(home, api.url))
    assert one(addresses.api(api.url, api.key, expected=True), Level.BAD)
    assert "nanochat up" in one(addresses.api(api.url, None, expected=False), Level.FINE).text


def test_a_clock_that_differs_from_the_api_s(home: Path) -> None:
    class Behind(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return "Thu, 01 Jan 2026 00:00:00 GMT"

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Behind) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        found = one(addresses.clock(home, f"http://127.0.0.1:{server.server_port}"), Level.ODD)
        server.shutdown()
    assert "ahead of that of http://127.0.0.1" in found.text


def test_a_proxy_that_takes_local_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert "NO_PROXY" in one(addresses.proxy(), Level.ODD).remedy
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert list(addresses.proxy()) == []


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n[]", b"HTTP/1.1 200 OK\r\n\r\n{}", b"HTTP/1.1 200 OK\r\n\r\n<html>"]
)
def test_another_program_at_the_api_s_address(said: bytes, home: Path) -> None:
    with speaking(said) as url:
        found = one(addresses.api(url, "k", expected=True), Level.BAD)
        assert found.text.startswith(url)
        assert all(f.level is Level.FINE for f in addresses.clock(home, url))
        assert one(addresses.ports({"api": int(url.rpartition(":")[2])}), Level.ODD)


def test_an_api_that_is_ready_but_lists_no_workers(home: Path) -> None:
    with speaking(b'HTTP/1.1 200 OK\r\n\r\n{"status": "ready"}') as url:
        assert "/v1/workers answers, but not as" in one(addresses.api(url, "k", expected=True), Level.BAD).text


def test_a_server_that_answers_byte_after_byte(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "WHOLE_S", 0.3)
    with speaking(b"HTTP/1.1 200 OK\r\n" * 10, pause_s=0.1) as url:
        assert "not complete after" in one(addresses.api(url, "k", expected=True), Level.BAD).text
        assert all(f.level is Level.FINE for f in addresses.clock(home, url))


def test_a_damaged_description_of_the_platform_is_a_finding(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "stack.json").write_text("[1", encoding="utf-8")
    monkeypatch.setenv("NANOCHAT_HOME", str(home))
    monkeypatch.delenv("NANOCHAT_API_URL", raising=False)
    assert "stack.json cannot be read" in one(findings(), Level.BAD).text


@contextmanager
def speaking(said: bytes, pause_s: float = 0.0) -> Iterator[str]:
    """A server that says the same to everybody: all at once or, with a pause, byte after byte."""

    class Speaker(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with suppress(OSError):  # who was spoken to has left
                for part in [said] if not pause_s else [said[at : at + 1] for at in range(len(said))]:
                    self.wfile.write(part)
                    time.sleep(pause_s)

    with ThreadingTCPServer(("127.0.0.1", 0), Speaker) as server:
        server.daemon_threads = True
        server.block_on_close = False
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
