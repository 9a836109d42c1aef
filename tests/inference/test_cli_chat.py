"""`nanochat chat` against the real service."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.errors import ApiError, ClientError, Unreachable
from nanochat.contract.contract import Artifact
from services.inference.source import fixed
from tests.inference import heart
from tests.inference.conftest import OTHER
from tests.inference.server import KEY, Server, serving


@pytest.fixture(autouse=True)
def environment(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_INFERENCE_URL", server.url)
    monkeypatch.setenv("NANOCHAT_API_KEY", KEY)
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))


def chat(*arguments: str, typed: str | None = None) -> str:
    result = CliRunner().invoke(app, ["chat", "--temperature", "0", *arguments], input=typed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_question_is_answered() -> None:
    assert chat(heart.WHO) == f"{heart.SELF}\n"
    assert chat(heart.SCRIPTS) == f"{heart.GLYPHS}\n"
    assert len(chat("--max-tokens", "3", heart.FOREVER)) < len(chat("--max-tokens", "30", heart.FOREVER))


def test_what_is_piped_in_is_a_conversation() -> None:
    assert chat(typed=f"{heart.WHO}\n\n").splitlines() == [heart.SELF]
    assert len(chat("--max-tokens", "5", typed=f"{heart.WHO}\n{heart.COUNT}\n").splitlines()) == 2


def test_an_unknown_model_and_no_service_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ApiError) as refusal:
        chat("--model", "none", heart.WHO)
    assert refusal.value.status == 404
    monkeypatch.setenv("NANOCHAT_INFERENCE_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1"):
        chat(heart.WHO)


def test_the_address_may_be_that_of_openais_clients(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_INFERENCE_URL", f"{server.url}/v1/")
    assert chat(heart.WHO) == f"{heart.SELF}\n"


def test_a_service_without_keys_needs_none(
    small_artifact: Artifact, tokenizer_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NANOCHAT_API_KEY")
    with pytest.raises(ClientError, match="no API key: set NANOCHAT_API_KEY"):
        chat(heart.WHO)
    with serving(fixed(small_artifact.dir, tokenizer_artifact.dir), api_key="") as open_to_all:
        open_to_all.wait_until_ready()
        monkeypatch.setenv("NANOCHAT_INFERENCE_URL", open_to_all.url)
        assert chat(heart.WHO) == f"{OTHER}\n"


@pytest.mark.parametrize(
    ("key", "prompt", "said"), [("sk-\u00e9", "Hi", "API key has characters"), (KEY, "\udcff", "not valid UTF-8")]
)
def test_what_cannot_be_sent(key: str, prompt: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_KEY", key)
    with pytest.raises(ClientError, match=said):
        chat(prompt)


def test_models_of_another_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_URL", server.url)
    with pytest.raises(ClientError, match="NANOCHAT_API_URL"):
        CliRunner().invoke(app, ["models"], catch_exceptions=False)
