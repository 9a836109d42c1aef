"""`nanochat chat` against the real service."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.errors import ApiError, Unreachable
from tests.inference import heart
from tests.inference.server import KEY, Server


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
