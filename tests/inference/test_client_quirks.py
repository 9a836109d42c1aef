"""What clients really send: odd orders of roles, fields that SDKs echo, the stream helper, other ways to send the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from nanochat.contract.contract import Artifact
from nanochat.model import GPTConfig
from nanochat.tokenizer import Tokenizer
from services.inference.source import fixed
from tests.inference import heart
from tests.inference.heart import SELF, SUM, WHO, part
from tests.inference.server import Server, serving

TWO_SUMS, TWO_SUMMED, TWO_CALLS = "Sums?", "3 + 4 = 7, 5 + 6 = 11.", [("3+4", "7"), ("5+6", "11")]
USER = {"role": "user", "content": WHO}


def complete(server: Server, messages: Any, **params: Any) -> Any:
    body = {"model": "default", "temperature": 0, **params}
    return server.openai().chat.completions.create(messages=messages, **body)


def prompt_tokens(server: Server, messages: Any) -> list[int]:
    response = server.http.post("/tokenize", json={"messages": messages})
    assert response.status_code == 200, response.text
    return list(response.json()["tokens"])


def message(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("odd", "trained"),
    [
        pytest.param(
            [message("developer", "D"), message("user", "U")], [message("system", "D"), message("user", "U")], id="developer"
        ),
        pytest.param([message("user", "A"), message("user", "B")], [message("user", "A\n\nB")], id="two user turns"),
        pytest.param(
            [message("assistant", "Hi"), message("user", "U")],
            [message("user", ""), message("assistant", "Hi"), message("user", "U")],
            id="the assistant greets first",
        ),
        pytest.param(
            [message("system", "S"), message("assistant", "Hi"), message("user", "U")],
            [message("user", "S"), message("assistant", "Hi"), message("user", "U")],
            id="greeting after a system message",
        ),
        pytest.param(
            [message("user", "A"), message("assistant", "B"), message("system", "S"), message("user", "U")],
            [message("user", "A"), message("assistant", "B"), message("user", "S\n\nU")],
            id="a later system message",
        ),
        pytest.param(
            [message("user", "A"), message("system", "S")], [message("user", "A\n\nS")], id="a system message at the end"
        ),
        pytest.param([message("system", "S")], [message("user", "S")], id="only a system message"),
        pytest.param(
            [message("user", "A"), message("assistant", "B"), message("assistant", "C"), message("user", "U")],
            [message("user", "A"), message("assistant", "B\n\nC"), message("user", "U")],
            id="two answers",
        ),
    ],
)
def test_odd_roles_are_rendered_in_the_nearest_trained_form(
    server: Server, tokenizer: Tokenizer, odd: Any, trained: Any
) -> None:
    assert prompt_tokens(server, odd) == tokenizer.render_for_completion({"messages": trained})
    assert complete(server, odd, max_tokens=1).usage.completion_tokens <= 1


@pytest.mark.parametrize(
    "echoed",
    [
        {"name": "bot"},
        {"tool_calls": []},
        {"tool_calls": None, "function_call": None, "audio": None, "refusal": None},
        {"annotations": []},
        {"annotations": [{"type": "url_citation"}]},
        {"reasoning_content": "hm"},
        {"cache_control": {"type": "ephemeral"}},
        {"id": "msg_1", "created_at": 5, "parsed": None, "calculator": [{"index": 0, "code": "1", "output": "1"}]},
    ],
)
@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_fields_that_sdks_add_to_messages_have_no_effect(server: Server, role: str, echoed: dict[str, Any]) -> None:
    plain = [message("user", "A"), message(role, "B"), USER]
    assert prompt_tokens(server, [message("user", "A"), message(role, "B", **echoed), USER]) == prompt_tokens(server, plain)


def test_contents_in_parts_with_cache_control(server: Server) -> None:
    parts = [{"type": "text", "text": WHO, "cache_control": {"type": "ephemeral"}}]
    assert complete(server, [message("user", parts)]).choices[0].message.content == SELF


@pytest.mark.parametrize("content", [None, "", []])
def test_an_assistant_that_said_nothing(server: Server, content: Any) -> None:
    empty = prompt_tokens(server, [message("user", "A"), message("assistant", ""), USER])
    assert prompt_tokens(server, [message("user", "A"), message("assistant", content), USER]) == empty
    absent = {"role": "assistant"}
    assert prompt_tokens(server, [message("user", "A"), absent, USER]) == empty


def test_an_answer_of_the_sdk_goes_back_unchanged(server: Server) -> None:
    first = complete(server, [message("user", SUM)]).choices[0].message
    for earlier in (first, first.model_dump(), first.model_dump(exclude_none=True)):
        again = complete(server, [message("user", SUM), earlier, USER], max_tokens=3)
        assert again.usage.completion_tokens > 0


@pytest.fixture(scope="module")
def adder(tokenizer: Tokenizer, tokenizer_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves a model that calls the calculator twice in one answer."""
    config = GPTConfig(sequence_len=128, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_kv_head=2, n_embd=64)
    answer = [part("text", "3 + 4 = "), part("python", "3+4"), part("python_output", "7"), part("text", "7, 5 + 6 = ")]
    answer += [part("python", "5+6"), part("python_output", "11"), part("text", "11.")]
    learnt = heart.learn(config, tokenizer, conversations=[(TWO_SUMS, answer)])
    directory = learnt.save(tmp_path_factory.mktemp("adder"), 1, tokenizer_artifact.sha256).dir
    with serving(fixed(directory, tokenizer_artifact.dir)) as running:
        running.wait_until_ready()
        yield running


def test_the_stream_helper_joins_two_calculator_calls(adder: Server) -> None:
    with adder.openai().chat.completions.stream(model="default", temperature=0, messages=[message("user", TWO_SUMS)]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion().choices[0].message
    assert final.content == TWO_SUMMED
    calls = (final.model_extra or {})["calculator"]
    assert [(call["code"], call["output"]) for call in calls] == TWO_CALLS


def test_the_stream_helper_with_everything_on(server: Server) -> None:
    wanted: dict[str, Any] = {"logprobs": True, "top_logprobs": 2, "n": 2, "stream_options": {"include_usage": True}}
    with server.openai().chat.completions.stream(model="default", temperature=0, messages=[USER], **wanted) as stream:  # type: ignore[list-item]
        final = stream.until_done().get_final_completion()
    assert [c.message.content for c in final.choices] == [SELF, SELF]
    assert final.usage is not None
    assert final.choices[0].logprobs is not None


def test_the_key_in_x_api_key(server: Server) -> None:
    headers = {"Authorization": "", "X-Api-Key": server.key}
    assert server.http.get("/v1/models", headers=headers).status_code == 200
    assert server.http.get("/v1/models", headers={**headers, "X-Api-Key": "wrong"}).status_code == 401


@pytest.mark.parametrize("base", ["/v1", "/v1/"])
def test_a_base_url_with_and_without_a_slash(server: Server, base: str) -> None:
    client = OpenAI(base_url=f"{server.url}{base}", api_key=server.key, max_retries=0)
    assert client.models.list().data
