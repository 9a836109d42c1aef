"""The requests of a chat page such as Open WebUI in one visit: the models, a streamed answer, then a title and tags."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.inference.heart import COUNT, SELF, WHO
from tests.inference.server import Server


@pytest.fixture
def page(server: Server) -> httpx.Client:
    """It knows a base URL with /v1 and a key, and sends headers of its own."""
    headers = {
        "Authorization": f"Bearer {server.key}",
        "Content-Type": "application/json",
        "X-OpenWebUI-User-Name": "Ada",
        "X-OpenWebUI-Chat-Id": "c1",
        "Accept": "*/*",
    }
    return httpx.Client(base_url=f"{server.url}/v1", headers=headers, timeout=60)


def events(response: httpx.Response) -> list[Any]:
    lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def streamed(page: httpx.Client, **body: Any) -> tuple[str, dict[str, Any]]:
    wanted = {"stream": True, "stream_options": {"include_usage": True}, **body}
    with page.stream("POST", "/chat/completions", json=wanted) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "content-length" not in response.headers
        chunks = events(response)
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return text, chunks[-1]["usage"]


def test_one_visit(page: httpx.Client, server: Server) -> None:
    models = page.get("/models").json()["data"]
    model = models[0]["id"]
    assert all({"id", "object", "created", "owned_by"} <= set(entry) for entry in models)

    talk: list[dict[str, Any]] = [{"role": "user", "content": WHO}]
    text, usage = streamed(page, model=model, messages=talk, temperature=0)
    assert (text, usage["completion_tokens"] > 0) == (SELF, True)

    # The page goes on: a second turn, then an answer that it asks for again, so that the user speaks twice in a row.
    talk += [{"role": "assistant", "content": text}, {"role": "user", "content": COUNT}]
    longer = streamed(page, model=model, messages=talk, temperature=0, max_tokens=5)[1]
    assert longer["prompt_tokens"] > usage["prompt_tokens"]
    talk = [{"role": "system", "content": ""}, *talk[:1], {"role": "user", "content": COUNT}]
    assert streamed(page, model=model, messages=talk, temperature=0, max_tokens=5)[1]["completion_tokens"] <= 5

    # Titles, tags and follow-up questions: whole answers, one long user message, the newer name of max_tokens.
    for task in ("a title of 3 to 5 words", "1 to 3 tags", "3 to 5 questions"):
        prompt = (
            f"### Task:\nWrite {task} for the chat as JSON.\n<chat_history>\nUSER: {WHO}\nASSISTANT: {text}\n</chat_history>"
        )
        body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": False, "max_completion_tokens": 8}
        answer = page.post("/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
    server.wait_until_idle()


def test_the_page_leaves_in_the_middle_of_an_answer(page: httpx.Client, server: Server) -> None:
    body = {
        "model": "default",
        "messages": [{"role": "user", "content": "Sing without end."}],
        "stream": True,
        "temperature": 0,
    }
    with page.stream("POST", "/chat/completions", json=body) as response:
        next(response.iter_lines())
    server.wait_until_idle()


def test_a_key_that_the_server_does_not_know(server: Server) -> None:
    response = httpx.get(f"{server.url}/v1/models", headers={"Authorization": "Bearer old"})
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_api_key")
