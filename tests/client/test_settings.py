"""Where the client looks for the platform and its key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.errors import ClientError
from client.settings import discover


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("API_URL", "INFERENCE_URL", "UI_URL", "API_KEY", "API_KEY_FILE"):
        monkeypatch.delenv(f"NANOCHAT_{name}", raising=False)
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    return tmp_path


def test_with_nothing_said_it_is_loopback_and_no_key(home: Path) -> None:
    settings = discover()
    assert (settings.api_url, settings.inference_url) == ("http://127.0.0.1:8000", "http://127.0.0.1:8001")
    with pytest.raises(ClientError, match=r"NANOCHAT_API_KEY.*keys/admin\.key"):
        settings.require_key()


def test_what_the_stack_left_behind_is_used(home: Path) -> None:
    key_file = home / "elsewhere.key"
    key_file.write_text("nc_stack\n")
    stack = {"api_url": "http://127.0.0.1:9/", "inference_url": "http://127.0.0.1:10", "ui_url": "http://127.0.0.1:11"}
    (home / "stack.json").write_text(json.dumps(stack | {"key_file": str(key_file)}))
    settings = discover()
    assert (settings.api_url, settings.inference_url, settings.ui_url, settings.api_key) == (
        "http://127.0.0.1:9",
        "http://127.0.0.1:10",
        "http://127.0.0.1:11",
        "nc_stack",
    )


def test_the_admin_key_of_the_home_is_found_without_a_stack(home: Path) -> None:
    (home / "keys").mkdir()
    (home / "keys" / "admin.key").write_text("nc_admin\n")
    assert discover().require_key() == "nc_admin"


def test_the_environment_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "stack.json").write_text(json.dumps({"api_url": "http://127.0.0.1:9"}))
    monkeypatch.setenv("NANOCHAT_API_URL", "http://example.test:1/")
    monkeypatch.setenv("NANOCHAT_API_KEY", "nc_env")
    settings = discover()
    assert (settings.api_url, settings.api_key) == ("http://example.test:1", "nc_env")


def test_files_that_cannot_be_read_are_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_KEY_FILE", str(home / "none.key"))
    with pytest.raises(ClientError, match=r"none\.key cannot be read"):
        discover()
    (home / "stack.json").write_text("{")
    with pytest.raises(ClientError, match=r"stack\.json cannot be read.*delete it"):
        discover()
