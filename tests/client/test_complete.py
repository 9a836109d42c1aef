"""What the shell offers after Tab when the server does not help."""

from __future__ import annotations

import socket
import time

import pytest
import typer

from client import complete
from client.cli import app


def test_a_server_that_never_answers_does_not_hold_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("NANOCHAT_API_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("NANOCHAT_API_KEY", "k")
        began = time.monotonic()
        assert complete.runs(typer.Context(typer.main.get_command(app)), "") == []
        assert time.monotonic() - began < 5
