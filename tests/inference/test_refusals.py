"""Bad requests are refused before any work starts. The error has OpenAI's format and names the parameter."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from services.inference.source import Entry
from tests.inference.heart import WHO
from tests.inference.server import Server, serving

USER = {"role": "user", "content": WHO}


def post(server: Server, **body: Any) -> tuple[int, dict[str, Any]]:
    response = server.http.post("/v1/chat/completions", json={"messages": [USER], **body})
    return response.status_code, response.json()["error"]


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "unsupported_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"continuous": 1}}, "stream_options.continuous", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0].type", "invalid_value"),
        ({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages", "invalid_value"),
    ],
)
def test_what_is_wrong_is_named(server: Server, change: dict[str, Any], param: str | None, code: str) -> None:
    status, error = post(server, **change)
    assert (status, error["type"], error["param"], error["code"]) == (400, "invalid_request_error", param, code)
    assert error["message"]
    assert "{" not in error["message"]  # every template is filled in


@pytest.mark.parametrize(
    "neutral", [{"tools": None}, {"logprobs": False}, {"response_format": {"type": "text"}}, {"tool_choice": "none"}]
)
def test_parameters_that_ask_for_nothing_are_accepted(server: Server, neutral: dict[str, Any]) -> None:
    body = {"messages": [USER], "max_tokens": 1, **neutral}
    assert server.http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_prompt_beyond_the_context(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        server.openai().chat.completions.create(model="default", messages=[{"role": "user", "content": "xyz " * 2000}])
    assert caught.value.code == "context_length_exceeded"
    assert "1024" in str(caught.value)


def test_an_answer_ends_where_the_context_does(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "q" * 1000}], "max_tokens": 4096, "temperature": 0, "top_k": 1}
    answer = server.http.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["total_tokens"] <= 1024


def test_a_wrong_key(server: Server) -> None:
    for key in ("Bearer wrong", "sk-test", ""):
        response = server.http.get("/v1/models", headers={"Authorization": key})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()


def test_an_unknown_model(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.openai().chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": WHO}])
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_bodies_and_paths_that_are_nothing(server: Server) -> None:
    bad = server.http.post("/v1/chat/completions", content=b"{nope", headers={"Content-Type": "application/json"})
    assert (bad.status_code, bad.json()["error"]["code"]) == (400, "invalid_json")
    assert server.http.post("/v1/chat/completions", json=[1]).status_code == 400
    nowhere = server.http.get("/v1/nothing")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_path")
    assert server.http.get("/v1/chat/completions").status_code == 405


def test_nothing_is_promoted_yet() -> None:
    def nothing() -> list[Entry]:
        return []

    with serving(nothing) as server:
        assert server.http.get("/health").status_code == 200
        assert server.http.get("/ready").status_code == 503
        assert server.http.get("/v1/models").json()["data"] == []
        response = server.http.post("/v1/chat/completions", json={"messages": [USER]})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "model_not_ready")
        assert int(response.headers["retry-after"]) > 0
