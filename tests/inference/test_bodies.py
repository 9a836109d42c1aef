"""Bodies and values that are no good: a clear 4xx that says what to change, on every route, and the service goes on."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.inference.heart import SELF, WHO
from tests.inference.server import Server

ROUTES = ("/v1/chat/completions", "/v1/completions", "/chat/completions", "/tokenize", "/detokenize")
GOOD = json.dumps({"messages": [{"role": "user", "content": WHO}], "temperature": 0}).encode()
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module", autouse=True)
def unharmed(server: Server) -> Iterator[None]:
    """After all of this the service answers as before."""
    yield
    answer = server.http.post("/v1/chat/completions", content=GOOD, headers=JSON).json()
    assert answer["choices"][0]["message"]["content"] == SELF


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"  \n", "empty", id="blank"),
        pytest.param(b"{", "line 1, column 2", id="cut off"),
        pytest.param(b'{"model": "a" "b"}', "delimiter", id="no comma"),
        pytest.param(b'{"model": "\xff"}', "UTF-8: byte 11 is 0xff", id="no UTF-8"),
        pytest.param('{"model": "ü"}'.encode("utf-16"), "UTF-8", id="UTF-16"),
        pytest.param(b'{"model": "\\ud83d"}', "surrogates", id="half a surrogate pair"),
        pytest.param(b'{"\\udc00": 1}', "surrogates", id="half a pair in a name"),
        pytest.param(b'{"model": "a", "model": "b"}', "'model' twice", id="a name twice"),
        pytest.param(b'{"temperature": NaN}', "NaN", id="NaN"),
        pytest.param(b'{"temperature": -Infinity}', "-Infinity", id="infinity"),
        pytest.param(b'{"seed": ' + b"9" * 10_000 + b"}", "too many digits", id="a huge number"),
        pytest.param(b"[" * 100_000, "too deeply", id="deep and open"),
        pytest.param(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "too deeply", id="deep objects"),
        pytest.param(b"[]", "body", id="a list"),
        pytest.param(b"null", "body", id="null"),
        pytest.param(b'"text"', "body", id="a text"),
    ],
)
@pytest.mark.parametrize("route", ROUTES)
def test_bodies_that_are_no_request(server: Server, route: str, body: bytes, words: str) -> None:
    response = server.http.post(route, content=body, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert words in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "nonsense"},
    ],
)
def test_a_wrong_content_type_says_which_header_to_send(server: Server, route: str, headers: dict[str, str]) -> None:
    response = server.http.post(route, content=GOOD, headers=headers)
    assert response.status_code == 415
    assert "`Content-Type: application/json`" in response.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["application/json; charset=UTF-8", "APPLICATION/JSON", "application/vnd.api+json"])
def test_content_types_that_are_json(server: Server, kind: str) -> None:
    assert server.http.post("/v1/chat/completions", content=GOOD, headers={"Content-Type": kind}).status_code == 200


def test_a_compressed_body(server: Server) -> None:
    response = server.http.post(
        "/v1/chat/completions", content=gzip.compress(GOOD), headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert response.status_code == 415
    assert "gzip" in response.json()["error"]["message"]


INTEGERS = ("max_tokens", "max_completion_tokens", "n", "top_k", "seed", "top_logprobs", "truncate_prompt_tokens")
NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
FLAGS = ("stream", "logprobs", "continue_final_message", "add_generation_prompt")


@pytest.mark.parametrize(
    ("param", "value"),
    [
        *((name, value) for name in INTEGERS for value in (True, "5", 1.5, [], {}, 10**30, -(10**30))),
        *((name, value) for name in NUMBERS for value in (True, "1", [], 1e308, -1e308)),
        *((name, value) for name in FLAGS for value in (1, "true", [])),
        *(("stop", value) for value in (5, [5], [""], "", {}, ["a"] * 5, [["a"]], "a" * 1001)),
        *(
            ("logit_bias", value)
            for value in (
                {"x": 1},
                {"-1": 1},
                {"5": 101},
                {"5": "1"},
                {"5": True},
                {"999999": 1},
                {"٣": 1},
                [],
                {str(i): 1 for i in range(1025)},
            )
        ),
        *(("stop_token_ids", value) for value in ([-1], [309], [True], 5, ["5"])),
        *(("model", value) for value in (5, [], "")),
        *(("stream_options", value) for value in ({}, {"include_usage": True}, 5)),
        *(("messages", value) for value in ([], None, "hi", {}, 5)),
    ],
)
def test_values_of_a_wrong_type_or_out_of_range(server: Server, param: str, value: Any) -> None:
    body = {"messages": [{"role": "user", "content": WHO}], "stream": False, param: value}
    response = server.http.post("/v1/chat/completions", json=body)
    assert response.status_code in (400, 404), response.text
    assert response.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize("name", ["temprature", "x-y", "", "{param!r}", "a\u0000b", "ü", "0"])
def test_unknown_parameters_are_named(server: Server, name: str) -> None:
    body = {"messages": [{"role": "user", "content": WHO}], name: 1}
    response = server.http.post("/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, name)
    assert repr(name) in response.json()["error"]["message"]


def test_a_nul_in_a_text_is_a_character_like_any_other(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "a\u0000b"}], "max_tokens": 1}
    assert server.http.post("/v1/chat/completions", json=body).status_code == 200
