"""Webhooks by command line, with a receiver that listens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from client.cli import app
from services.standalone.valkey import Valkey
from tests.api.receiver import receiving, status
from tests.api.server import Api, serving


@pytest.fixture
def api(
    database_url: str, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Api]:
    with serving(database_url, valkey.url, tmp_path_factory.mktemp("home"), webhook_networks="127.0.0.0/8") as running:
        monkeypatch.setenv("NANOCHAT_API_URL", running.url)
        monkeypatch.setenv("NANOCHAT_API_KEY", running.key)
        yield running


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["webhook", *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_webhook_by_command_line(api: Api) -> None:
    with receiving() as receiver:
        url = f"http://127.0.0.1:{receiver.port}/hook"
        hook, secret = said("make", url, "--name", "alerts", "--kind", "run_status", "--kind", "eval", "--label", "x").split()
        assert said("ping", hook).endswith(" DELIVERED\n")
        Webhook(secret).verify(receiver.arrived[0].body, dict(receiver.arrived[0].headers))
        row = next(line for line in said("list").splitlines() if line.startswith(hook))
        assert row.split() == [hook, "alerts", url[:-5], "eval,", "run_status", "0", "on"]
        receiver.answer = status(503)
        failed = said("ping", hook, code=1)
        assert failed.endswith(" FAILED: the receiver answered 503\n")
        assert "on, failing: the receiver answered 503" in said("list")
        delivery = failed.split()[0]
        assert [x["id"] for x in json.loads(said("deliveries", hook, "--status", "FAILED", "--json"))["items"]] == [delivery]
        receiver.answer = status(200)
        assert said("redeliver", hook, delivery) == f"{delivery} will be sent again\n"
        assert said("rotate", hook, "--overlap", "0").strip() not in ("", secret)
        assert said("change", hook, "--off", "--name", "quiet") == f"{hook} off\n"
        assert said("change", hook, "--on", "--kind", "error").startswith(f"{hook} on")
        assert json.loads(said("list", "--json"))["items"][0]["kinds"] == ["error"]
        assert delivery in said("deliveries", hook)
        assert said("delete", hook) == f"{hook} deleted\n"
        assert json.loads(said("list", "--json"))["items"] == []
