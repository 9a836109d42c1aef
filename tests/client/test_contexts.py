"""Contexts: several servers by name, with a key for each."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client import contexts
from client.cli import app
from client.errors import ClientError
from client.settings import chosen
from tests.api.server import Api


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    for name in ("API_URL", "INFERENCE_URL", "UI_URL", "API_KEY", "API_KEY_FILE", "CONTEXT"):
        monkeypatch.delenv(f"NANOCHAT_{name}", raising=False)


def run(*arguments: str, typed: str | None = None, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments), input=typed, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_a_server_is_added_used_and_removed(api: Api, tmp_path: Path) -> None:
    key_file = tmp_path / "lab.key"
    key_file.write_text(f"{api.key}\n")
    run("context", "add", "lab", "--api", api.url, "--key-file", str(key_file))
    run(
        "context",
        "add",
        "far",
        "--api",
        "http://127.0.0.1:1",
        "--inference",
        "http://127.0.0.1:2/v1/",
        "--key-file",
        "-",
        typed="nc_far\n",
    )
    assert stat.S_IMODE(contexts.file().stat().st_mode) == 0o600
    told = json.loads(run("whoami", "--json").stdout)
    assert (told["context"], told["api_url"], told["key"]["role"]) == ("lab", api.url, "admin")
    listed = run("context", "list").stdout
    assert "*\tlab" in listed
    assert "nc_far" not in listed + run("context", "list", "--json").stdout
    run("context", "use", "far")
    assert (chosen().api_key, chosen().inference_url) == ("nc_far", "http://127.0.0.1:2")
    assert json.loads(run("whoami", "--json", "--context", "lab").stdout)["context"] == "lab"
    run("context", "remove", "far")
    assert chosen().context is None


def test_the_option_goes_before_the_environment_and_that_before_the_context_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, port in (("one", 1), ("two", 2)):
        run("context", "add", name, "--api", f"http://127.0.0.1:{port}", "--key-file", "-", typed=f"nc_{name}\n")
    assert chosen().context == "one"
    monkeypatch.setenv("NANOCHAT_CONTEXT", "two")
    assert chosen().api_key == "nc_two"
    monkeypatch.setenv("NANOCHAT_API_URL", "http://127.0.0.1:3")
    monkeypatch.setenv("NANOCHAT_API_KEY", "nc_env")
    assert (chosen().api_url, chosen().api_key) == ("http://127.0.0.1:3", "nc_env")
    assert (chosen("one").api_url, chosen("one").api_key) == ("http://127.0.0.1:1", "nc_one")


def test_mistakes_are_told(tmp_path: Path) -> None:
    run("context", "add", "a b", "--api", "http://127.0.0.1:1", code=2)
    run("context", "add", "a", "--api", "127.0.0.1:1", code=2)
    run("context", "add", "a", "--api", "http://127.0.0.1:1", "--key-file", str(tmp_path / "none"), code=2)
    run("context", "add", "bare", "--api", "http://127.0.0.1:1")
    with pytest.raises(ClientError, match="no context 'other'; there are: bare"):
        chosen("other")
    with pytest.raises(ClientError, match="'bare' has no API key"):
        chosen("bare").require_key()
    with pytest.raises(ClientError, match="'bare' has no inference address"):
        chosen("bare").require_inference()
    for damaged in ("{", '{"contexts": {"a": {"api_url": "http://x", "key": ["nc_secret"]}}}', "[1, 2]", '{"key": "nc_secret"'):
        contexts.file().write_text(damaged)
        with pytest.raises(ClientError, match=r"contexts\.json cannot be read; mend it or delete it") as refused:
            chosen()
        assert "secret" not in str(refused.value)
        assert "\n" not in str(refused.value)
