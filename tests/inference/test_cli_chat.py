"""`nanochat chat` against the real service."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.errors import ApiError, ClientError, Unreachable
from nanochat.contract.contract import Artifact
from services.inference.source import fixed
from tests.client.terminal import terminal
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
    return result.stdout


def test_one_question_is_answered() -> None:
    assert chat(heart.WHO) == f"{heart.SELF}\n"
    assert chat(heart.SCRIPTS) == f"{heart.GLYPHS}\n"
    assert len(chat("--max-tokens", "3", heart.FOREVER)) < len(chat("--max-tokens", "30", heart.FOREVER))


def test_what_is_piped_in_is_a_conversation() -> None:
    assert chat(typed=f"{heart.WHO}\n\n").splitlines() == [heart.SELF]
    assert len(chat("--max-tokens", "5", typed=f"{heart.WHO}\n{heart.COUNT}\n").splitlines()) == 2


def test_an_answer_as_json_says_what_it_took() -> None:
    found = json.loads(chat("--json", "--seed", "3", heart.SUM))
    assert found["text"] == heart.SUMMED
    assert [(used["code"], used["output"]) for used in found["calculations"]] == [(heart.CODE, heart.VALUE)]
    assert found["usage"]["completion_tokens"] > 0
    assert found["seconds"] >= found["first_token_s"] > 0
    whole = json.loads(chat("--json", "-", typed=f"{heart.WHO}"))
    assert (whole["text"], whole["finish_reason"]) == (heart.SELF, "stop")


def test_a_conversation_at_the_prompt() -> None:
    with terminal("chat", "--temperature", "0", columns=100) as talk:
        talk.wait_for("you>")
        talk.type(f"{heart.WHO}\n")
        talk.wait_for(heart.SELF)
        talk.wait_for("tokens")  # what the answer took stands under it
        for typed, shown in (
            ("/retry", heart.SELF),
            ("/reset", "A new conversation"),
            (heart.SUM, f"[{heart.CODE} = {heart.VALUE}]"),
            ("/model", "* "),
            ("/model nothing", "There is no model 'nothing'"),
            ("/set max_tokens 5", "max_tokens 5"),
            ("/set max_tokens five", "'five' is no value"),
            ("/set temperature nan", "'nan' is no value"),
            ("/reset", "A new conversation"),
            (heart.FOREVER, "cut off at max_tokens"),
            ("/system Be kind.", "reads that before"),
            ("/reset", "A new conversation"),
            ("/retry", "There is no answer yet"),
            ("/nonsense", "There is no such command"),
        ):
            talk.wait_for("you>")
            talk.type(f"{typed}\n")
            talk.wait_for(shown)
        talk.wait_for("you>")
        talk.type("\x04")
        assert talk.end().code == 0


def test_a_conversation_that_outgrows_the_context_goes_on_without_its_oldest_part() -> None:
    with terminal("chat", "--temperature", "0", "--max-tokens", "8", columns=100) as talk:
        talk.wait_for("you>")
        talk.type("8 3 " * 850 + "\n")  # more than the 1,024 tokens of the model's context
        talk.wait_for("[Y/n]")
        talk.type("\n")
        talk.wait_for("you>")
        talk.type("/quit\n")
        assert talk.end().code == 0


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
