"""The routes beside the completions, and what HTTP clients and browsers expect of each route."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import httpx
import pytest

from nanochat.contract.contract import Artifact
from nanochat.tokenizer import Tokenizer
from services import logs
from services.inference.source import fixed
from tests.inference.heart import GLYPHS, SCRIPTS, SELF, SUM, WHO
from tests.inference.server import Server, serving

MODEL = "step_000200"
ORIGIN = "https://chat.example"


def seed_events(server: Server, **body: Any) -> list[dict[str, Any]]:
    response = server.http.post("/chat/completions", json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line.removeprefix("data: ")) for line in response.text.split("\n\n") if line]


def test_models_by_id_and_by_the_alias(server: Server) -> None:
    listed = server.openai().models.list().data[0]
    assert server.openai().models.retrieve(MODEL) == server.openai().models.retrieve("default") == listed
    assert (listed.id, (listed.model_extra or {})["default"]) == (MODEL, True)


@pytest.mark.parametrize("name", ["gpt-9", "org/model", "ü", "%00"])
def test_unknown_models(server: Server, name: str) -> None:
    response = server.http.get(f"/v1/models/{name}")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("text", [GLYPHS, "", "<|bos|> is text here", "a\u0000b", "x" * 5000])
def test_tokenize_and_detokenize(server: Server, tokenizer: Tokenizer, text: str) -> None:
    body = {"prompt": text, "add_special_tokens": False, "return_token_strs": True, "return_token_bytes": True}
    answer = server.http.post("/tokenize", json=body).json()
    assert answer["tokens"] == tokenizer.encode(text)
    assert (answer["count"], len(answer["token_strs"])) == (len(answer["tokens"]), len(answer["tokens"]))
    assert bytes.fromhex("".join(answer["token_bytes"])) == text.encode()
    assert answer["max_model_len"] == 1024
    assert server.http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}
    with_bos = server.http.post("/tokenize", json={"prompt": text}).json()["tokens"]
    assert with_bos == [tokenizer.bos, *answer["tokens"]]


def test_tokenize_counts_what_a_completion_reads(server: Server) -> None:
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": WHO}]
    answer = server.openai().chat.completions.create(model="default", messages=messages, max_tokens=1)
    assert answer.usage is not None
    assert server.http.post("/tokenize", json={"messages": messages}).json()["count"] == answer.usage.prompt_tokens


@pytest.mark.parametrize("tokens", [[309], [-1], [2**40], [True], ["5"], None])
def test_tokens_that_are_none(server: Server, tokens: Any) -> None:
    response = server.http.post("/detokenize", json={"tokens": tokens})
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("tokens")


def test_nanochats_own_stream(server: Server) -> None:
    *tokens, last = seed_events(server, messages=[{"role": "user", "content": WHO}], temperature=0, unknown=1)
    assert last == {"done": True}
    assert all(set(event) == {"token", "gpu"} and event["gpu"] == 0 for event in tokens)
    assert "".join(event["token"] for event in tokens) == SELF
    assert len(tokens) > 5


def test_null_is_the_default_in_nanochats_own_stream(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": WHO}], "temperature": None, "max_tokens": None, "top_k": None}
    assert seed_events(server, **body)[-1] == {"done": True}


def test_nanochats_own_stream_shows_calculator_spans_and_whole_characters(server: Server) -> None:
    events = seed_events(server, messages=[{"role": "user", "content": SUM}], temperature=0)
    text = "".join(event.get("token", "") for event in events)
    assert text == "12 + 7 = <|python_start|>12+7<|python_end|><|output_start|>19<|output_end|>19."
    events = seed_events(server, messages=[{"role": "user", "content": SCRIPTS}], temperature=0, max_tokens=40)
    assert not any("\ufffd" in event.get("token", "") for event in events[:-2])
    assert GLYPHS.startswith("".join(event.get("token", "") for event in events).rstrip("\ufffd"))


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 501}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a" * 8001}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "a" * 8000}] * 5}, "messages"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 201}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 4097}, "max_tokens"),
        ({"n": 2}, "n"),
    ],
)
def test_the_limits_of_nanochats_own_server(server: Server, change: dict[str, Any], param: str) -> None:
    body = {"messages": [{"role": "user", "content": WHO}], **change}
    response = server.http.post("/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_health_stats_and_version(server: Server) -> None:
    anonymous = {"Authorization": ""}
    health = server.http.get("/health", headers=anonymous).json()
    assert health == {"status": "ok", "ready": True, "num_gpus": 1, "available_workers": 1}
    stats = server.http.get("/stats", headers=anonymous).json()
    assert stats["total_workers"] == stats["available_workers"] + stats["busy_workers"] == len(stats["workers"]) == 1
    assert stats["workers"][0] == {"gpu_id": 0, "device": "cpu"}
    assert server.http.get("/version", headers=anonymous).json()["version"]


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics", "/version", "/stats", "/v1/models", "/v1/models/default"])
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    head, get = server.http.head(path), server.http.get(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("HEAD", "/v1/completions", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PUT", "/tokenize", "POST"),
        ("OPTIONS", "/v1/models", "GET, HEAD"),
    ],
)
def test_a_method_that_a_path_does_not_have(server: Server, method: str, path: str, allowed: str) -> None:
    response = server.http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert response.json()["error"]["code"] == "method_not_allowed"


def test_a_trailing_slash_needs_no_redirect(server: Server) -> None:
    evil = {"Host": "evil.example"}
    assert server.http.get("/v1/models/", headers=evil).json() == server.http.get("/v1/models").json()
    body = {"messages": [{"role": "user", "content": WHO}], "temperature": 0}
    response = server.http.post("/v1/chat/completions/", json=body, headers=evil)
    assert (response.status_code, response.history) == (200, [])
    nowhere = server.http.get("/nowhere/", headers=evil)
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (404, "unknown_path")


def test_a_request_id_is_echoed_or_made_and_is_in_the_log(server: Server) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.formatter("json"))
    logger = logging.getLogger("services.inference")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        body = {"messages": [{"role": "user", "content": WHO}], "temperature": 0}
        answer = server.http.post("/v1/chat/completions", json=body, headers={"X-Request-Id": "mine-1"})
        assert answer.headers["x-request-id"] == "mine-1"
        refused = server.http.get("/nowhere", headers={"X-Request-Id": "a" * 500})
        assert 0 < len(refused.headers["x-request-id"]) < 100
        assert server.http.get("/version").headers["x-request-id"] != server.http.get("/version").headers["x-request-id"]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["request"] for line in lines if "chat/completions" in line["event"]] == ["mine-1"]
    assert WHO not in stream.getvalue()
    assert SELF not in stream.getvalue()


PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


def test_other_origins_get_nothing_by_default(server: Server) -> None:
    asked = server.http.options("/v1/chat/completions", headers={"Origin": ORIGIN, **PREFLIGHT})
    got = server.http.get("/v1/models", headers={"Origin": ORIGIN})
    for response in (asked, got):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_origins_that_the_operator_names(small_artifact: Artifact, tokenizer_artifact: Artifact) -> None:
    source = fixed(small_artifact.dir, tokenizer_artifact.dir)
    with serving(source, cors_origins=f"{ORIGIN}, https://other.example") as server:
        asked = httpx.options(f"{server.url}/v1/chat/completions", headers={"Origin": ORIGIN, **PREFLIGHT})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "x-stainless-os" in asked.headers["access-control-allow-headers"]
        denied = httpx.get(f"{server.url}/v1/models", headers={"Origin": ORIGIN})
        assert (denied.status_code, denied.headers["access-control-allow-origin"]) == (401, ORIGIN), "the page can read why"
        foreign = httpx.get(f"{server.url}/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers


def test_limits_are_configurable(small_artifact: Artifact, tokenizer_artifact: Artifact) -> None:
    limits = {
        "messages": 2,
        "message_chars": 5,
        "total_chars": 8,
        "temperature": 1.0,
        "top_k": 3,
        "max_tokens": 4,
        "n": 1,
        "prompts": 1,
    }
    with serving(fixed(small_artifact.dir, tokenizer_artifact.dir), limits=limits) as server:
        server.wait_until_ready()

        def refused(path: str, **body: Any) -> str | None:
            response = server.http.post(path, json=body)
            return response.json()["error"]["param"] if response.status_code == 400 else None

        def chat(*contents: str, **more: Any) -> str | None:
            return refused("/v1/chat/completions", messages=[{"role": "user", "content": c} for c in contents], **more)

        assert chat("abcd", "abcd", temperature=1.0, top_k=3, max_tokens=4) is None
        assert chat("a", "b", "c") == "messages"
        assert chat("abcdef") == "messages[0].content"
        assert chat("abcde", "abcd") == "messages"
        for change in ({"temperature": 1.1}, {"top_k": 4}, {"max_tokens": 5}, {"max_completion_tokens": 5}, {"n": 2}):
            assert chat("a", **change) == next(iter(change))
        assert refused("/v1/completions", prompt=["a", "b"]) == "prompt"
        assert refused("/v1/completions", prompt="a" * 9) == "prompt"
        assert refused("/tokenize", prompt="a" * 9) == "prompt"
