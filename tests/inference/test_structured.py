"""Constrained answers over REST: what OpenAI's client sends, vLLM's names, and what is refused before any work."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import jsonschema
import openai
import pytest
import regex
from pydantic import BaseModel, Field

from tests.inference.heart import SELF, WHO
from tests.inference.server import Server

USER = {"role": "user", "content": WHO}
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CODE = {
    "type": "object",
    "properties": {"code": {"enum": ["a", "b"]}},
    "required": ["code"],
    "additionalProperties": False,
}
WEATHER, CHECK, NOW = (
    {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": CITY}},
    {"type": "function", "function": {"name": "check", "parameters": CODE, "strict": True}},
    {"type": "function", "function": {"name": "now"}},
)
# Its schema takes seconds to compile; this one ends the process that compiles it.
SLOW = {"type": "integer", "multipleOf": 1_000_003}
FATAL = {"allOf": [{"type": "string", "pattern": f".*a.{{{i}}}b.*"} for i in range(1, 30)]}


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    lives: int = Field(ge=1, le=9)
    names: list[Literal["Tom", "Rex"]] = Field(max_length=2)


def chat(server: Server, **body: Any) -> dict[str, Any]:
    response = server.http.post("/v1/chat/completions", json={"messages": [USER], "max_tokens": 200, **body})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(server: Server, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, str, str]:
    given = {"messages": [USER]} if "chat" in path else {"prompt": "the quick"}
    response = server.http.post(path, json={**given, **body})
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


# -- response_format --


def test_parse_with_a_pydantic_model(server: Server) -> None:
    for seed in range(3):
        done = server.openai().chat.completions.parse(
            model="default", messages=[USER], response_format=Pet, seed=seed, temperature=1.5, max_tokens=200
        )
        assert isinstance(done.choices[0].message.parsed, Pet)
        assert done.choices[0].finish_reason == "stop"


def test_stream_with_a_pydantic_model(server: Server) -> None:
    with server.openai().chat.completions.stream(
        model="default", messages=[USER], response_format=Pet, n=2, temperature=1, max_tokens=200
    ) as stream:
        assert any(event.type == "content.delta" for event in stream)
        final = stream.get_final_completion()
    assert all(isinstance(choice.message.parsed, Pet) for choice in final.choices)


def test_a_json_object_beside_free_answers(server: Server) -> None:
    """The free answer is the memorized one, whatever runs beside it."""
    with ThreadPoolExecutor(6) as pool:
        free = [pool.submit(chat, server, temperature=0) for _ in range(2)]
        held = [pool.submit(chat, server, response_format={"type": "json_object"}, seed=i, n=2) for i in range(4)]
    assert {future.result()["choices"][0]["message"]["content"] for future in free} == {SELF}
    for future in held:
        for choice in future.result()["choices"]:
            if choice["finish_reason"] == "stop":
                assert isinstance(json.loads(choice["message"]["content"]), dict)


def test_strict_refuses_what_is_not_enforced_and_lenient_ignores_it(server: Server) -> None:
    schema = {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2, "uniqueItems": True}
    form = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": schema}}
    content = chat(server, response_format=form)["choices"][0]["message"]["content"]
    assert len(json.loads(content)) <= 2
    form["json_schema"] = {**form["json_schema"], "strict": True}  # type: ignore[dict-item]
    status, param, message = refused(server, response_format=form)
    assert (status, param) == (400, "response_format.json_schema")
    assert "uniqueItems" in message


def test_an_answer_that_the_limit_cuts_off_says_so(server: Server) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
    assert chat(server, response_format=form, max_tokens=3)["choices"][0]["finish_reason"] == "length"


# -- vLLM's names, on both routes --


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(
    ("how", "pattern"),
    [
        ({"guided_regex": r"[A-Z]{3}-\d{2}"}, r"[A-Z]{3}-\d{2}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"guided_json": {"enum": ["left", "right"]}}, '"left"|"right"'),
        ({"structured_outputs": {"regex": "(ab){2,3}"}}, "(ab){2,3}"),
        ({"structured_outputs": {"choice": ["日本", "🎉"]}}, "日本|🎉"),
        ({"structured_outputs": {"json": '{"type": "integer", "minimum": 1, "maximum": 12}'}}, "[1-9]|1[0-2]"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"const": 7}}}}, "7"),
    ],
)
def test_an_answer_matches(server: Server, path: str, how: dict[str, Any], pattern: str) -> None:
    given = {"messages": [USER]} if "chat" in path else {"prompt": "the quick"}
    answer = server.http.post(path, json={**given, **how, "n": 3, "max_tokens": 60, "temperature": 1.2}).json()
    for choice in answer["choices"]:
        text = choice["message"]["content"] if "chat" in path else choice["text"]
        assert regex.fullmatch(pattern, text)
        assert choice["finish_reason"] == "stop"


def test_a_constraint_combines_with_stop_texts_and_log_probabilities(server: Server) -> None:
    how: dict[str, Any] = {"guided_regex": "[ab]{40}", "seed": 3, "logprobs": True, "top_logprobs": 2}
    [whole] = chat(server, **how)["choices"]
    text = whole["message"]["content"]
    assert regex.fullmatch("[ab]{40}", text)
    assert "".join(entry["token"] for entry in whole["logprobs"]["content"]) == text
    stop = text[10:14]
    [cut] = chat(server, **how, stop=stop)["choices"]
    assert (cut["message"]["content"], cut["finish_reason"]) == (text[: text.find(stop)], "stop")


@pytest.mark.parametrize(
    ("how", "param", "words"),
    [
        ({"guided_regex": "(a"}, "guided_regex", "unclosed group"),
        ({"guided_regex": ""}, "guided_regex", "empty"),
        ({"guided_choice": []}, "guided_choice", "at least one choice"),
        ({"guided_json": "{"}, "guided_json", "not valid JSON"),
        ({"guided_json": {"type": "thing"}}, "guided_json", "Invalid type: thing"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs", "exactly one"),
        ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar", "Unknown parameter"),
        ({"structured_outputs": {"regex": r"(a)\1"}}, "structured_outputs.regex", "backreferences"),
        ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "guided_regex"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "json_schema"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex", "response_format"),
    ],
)
def test_a_bad_constraint_is_refused_by_name(server: Server, how: dict[str, Any], param: str, words: str) -> None:
    for path in ("/v1/chat/completions", "/v1/completions"):
        status, named, message = refused(server, path, **how)
        assert (status, named) == (400, param)
        assert words in message


def test_a_grammar_made_to_stop_the_server_is_refused(server: Server) -> None:
    """Meanwhile others are answered, and afterwards grammars are."""
    with ThreadPoolExecutor(3) as pool:
        attacks = [pool.submit(refused, server, guided_json=schema) for schema in (SLOW, FATAL)]
        began = time.monotonic()
        assert chat(server, temperature=0)["choices"][0]["message"]["content"] == SELF
        answered = time.monotonic() - began
    for attack in attacks:
        status, param, message = attack.result()
        assert (status, param) == (400, "guided_json")
        assert "time or memory" in message
    assert answered < 10
    assert chat(server, guided_choice=["still here"])["choices"][0]["message"]["content"] == "still here"


def test_a_grammar_that_becomes_too_much_work_while_the_answer_is_written(server: Server) -> None:
    """It can be compiled, but after the first digit the next one exceeds the bounds on a step. Others are not affected."""
    how = {"guided_json": {"type": "integer", "multipleOf": 100_003, "minimum": 3, "maximum": 10**16 - 1}}
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(chat, server, temperature=0)
        response = server.http.post("/v1/chat/completions", json={"messages": [USER], **how})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "grammar_too_complex")
    assert other.result()["choices"][0]["message"]["content"] == SELF
    streamed = server.http.post("/v1/chat/completions", json={"messages": [USER], "stream": True, **how}).text
    assert "grammar_too_complex" in streamed
    assert streamed.rstrip().endswith("[DONE]")
    server.wait_until_idle()


# -- tools --


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "check"}}], ids=["required", "named"])
def test_a_forced_call_has_valid_arguments(server: Server, choice: Any) -> None:
    done = server.openai().chat.completions.create(
        model="default", messages=[USER], tools=[WEATHER, CHECK], tool_choice=choice, n=4, temperature=1.2, max_tokens=200
    )
    for answer in done.choices:
        [call] = answer.message.tool_calls or []
        assert answer.finish_reason == "tool_calls"
        assert answer.message.content is None
        assert call.type == "function"
        assert call.function.name in ({"get_weather", "check"} if choice == "required" else {"check"})
        jsonschema.validate(json.loads(call.function.arguments), CITY if call.function.name == "get_weather" else CODE)
    ids = [call.id for answer in done.choices for call in answer.message.tool_calls or []]
    assert len(set(ids)) == 4


def test_a_streamed_call_is_the_whole_one(server: Server) -> None:
    how: dict[str, Any] = {"model": "default", "messages": [USER], "tools": [WEATHER, NOW], "tool_choice": "required"}
    how |= {"seed": 5, "temperature": 1, "max_tokens": 200}
    whole = server.openai().chat.completions.create(**how).choices[0]
    with server.openai().chat.completions.stream(**how) as stream:
        pieces = [event.arguments_delta for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    [made], [told] = whole.message.tool_calls or [], final.message.tool_calls or []
    assert (told.function.name, told.function.arguments) == (made.function.name, made.function.arguments)
    assert "".join(pieces) == made.function.arguments
    assert final.finish_reason == "tool_calls"


def test_a_call_that_the_limit_cuts_off_keeps_every_character(server: Server) -> None:
    how: dict[str, Any] = {"tools": [WEATHER], "tool_choice": "required", "seed": 1}
    whole = chat(server, **how)
    arguments = whole["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    for less in range(1, 6):
        [cut] = chat(server, **how, max_tokens=whole["usage"]["completion_tokens"] - less)["choices"]
        assert cut["finish_reason"] == "length"
        assert arguments.startswith(cut["message"]["tool_calls"][0]["function"]["arguments"])


def test_tools_without_a_call(server: Server) -> None:
    message = chat(server, tools=[WEATHER], tool_choice="none", temperature=0, parallel_tool_calls=True)["choices"][0][
        "message"
    ]
    assert message["content"] == SELF
    assert "tool_calls" not in message


def test_the_call_and_its_result_are_sent_back(server: Server) -> None:
    """As the client's own helpers do; the model continues the conversation."""
    client = server.openai()
    first = client.chat.completions.create(model="default", messages=[USER], tools=[CHECK], tool_choice="required")
    asked = first.choices[0].message
    result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "ok"}
    rest = [USER, asked.model_dump(), result]
    again = client.chat.completions.create(model="default", messages=rest, tools=[CHECK], tool_choice="none", max_tokens=4)
    assert again.choices[0].finish_reason in ("stop", "length")
    shown = f'{{"name": "check", "arguments": {asked.tool_calls[0].function.arguments}}}'
    plain = [USER, {"role": "assistant", "content": shown}, {"role": "user", "content": "ok"}]
    same = client.chat.completions.create(model="default", messages=plain, max_tokens=1)
    assert again.usage.prompt_tokens == same.usage.prompt_tokens


@pytest.mark.parametrize(
    ("how", "param", "words"),
    [
        ({"tools": [WEATHER]}, "tools", "not trained to decide"),
        ({"tools": [WEATHER], "tool_choice": "auto"}, "tool_choice", "not trained to decide"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "no tool 'x'"),
        ({"tools": [WEATHER, WEATHER], "tool_choice": "none"}, "tools", "same name"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "function"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}],
                "tool_choice": "required",
            },
            "tools",
            "type 'object'",
        ),
        ({"tools": [WEATHER], "tool_choice": "required", "stop": "x"}, "stop", "exclude each other"),
        ({"tools": [WEATHER], "tool_choice": "required", "stop_token_ids": [9]}, "stop_token_ids", "exclude each other"),
        ({"tools": [WEATHER], "tool_choice": "required", "guided_regex": "x"}, "guided_regex", "tool_choice"),
    ],
)
def test_tools_that_cannot_be_used_are_refused_by_name(server: Server, how: dict[str, Any], param: str, words: str) -> None:
    status, named, message = refused(server, **how)
    assert (status, named) == (400, param)
    assert words in message


def test_the_client_raises_its_own_error(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match="not trained to decide"):
        server.openai().chat.completions.create(model="default", messages=[USER], tools=[WEATHER])
