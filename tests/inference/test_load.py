"""Concurrent requests: they take turns, their number is limited, and a client that disconnects frees its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from nanochat.contract.contract import Artifact
from services.inference.source import fixed
from tests.inference.heart import FOREVER, SELF, WHO
from tests.inference.server import KEY, Server, serving, wait_for


@pytest.fixture(scope="module")
def narrow(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Iterator[Server]:
    """A service that decodes two requests at a time and queues one more."""
    with serving(fixed(model_artifact.dir, tokenizer_artifact.dir), max_running=2, max_waiting=1) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(autouse=True)
def _all_is_quiet(narrow: Server) -> Iterator[None]:
    yield
    narrow.wait_until_idle()
    assert narrow.metric("num_requests_waiting") == 0


def sing(server: Server, **params: Any) -> Any:
    """A stream that continues to the end of the context unless it is closed."""
    messages: list[Any] = [{"role": "user", "content": FOREVER}]
    return server.openai().chat.completions.create(model="default", messages=messages, temperature=0, stream=True, **params)


def running(server: Server, stream: Any) -> Any:
    """Wait until the engine generates this stream."""
    for chunk in stream:
        if chunk.choices[0].delta.content:
            return stream
    raise AssertionError("the stream ended")


def test_a_short_request_is_not_kept_waiting_by_a_long_one(narrow: Server) -> None:
    stream = running(narrow, sing(narrow))
    answer = narrow.openai().chat.completions.create(
        model="default", messages=[{"role": "user", "content": WHO}], temperature=0
    )
    assert answer.choices[0].message.content == SELF
    wait_for(lambda: narrow.metric("num_requests_running") == 1, "the long one alone at work")
    assert next(iter(stream)).choices[0].delta.content
    stream.close()


def test_a_full_queue_refuses_with_429(narrow: Server) -> None:
    streams = [running(narrow, sing(narrow)) for _ in range(2)]
    waiting = sing(narrow)  # the headers come at once; the first token does not
    wait_for(lambda: narrow.metric("num_requests_waiting") == 1, "queued")
    with pytest.raises(openai.RateLimitError) as caught:
        sing(narrow)
    assert int(caught.value.response.headers["retry-after"]) > 0
    assert caught.value.code == "rate_limit_exceeded"
    assert narrow.metric("admission_rejections_total", reason="queue_full") == 1
    for stream in [waiting, *streams]:
        stream.close()


def test_hanging_up_on_a_stream_ends_the_work(narrow: Server) -> None:
    before = narrow.metric("request_cancelled_total")
    running(narrow, sing(narrow)).close()
    narrow.wait_until_idle()
    wait_for(lambda: narrow.metric("request_cancelled_total") == before + 1, "counted as cancelled")


def test_hanging_up_on_a_whole_answer_ends_the_work(narrow: Server) -> None:
    before = narrow.metric("request_cancelled_total")
    body = {"messages": [{"role": "user", "content": FOREVER}], "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{narrow.url}/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=httpx.Timeout(5, read=0.05),
        )
    narrow.wait_until_idle()
    wait_for(lambda: narrow.metric("request_cancelled_total") == before + 1, "counted as cancelled")


def test_hanging_up_while_queued_gives_the_place_back(narrow: Server) -> None:
    streams = [running(narrow, sing(narrow)) for _ in range(2)]
    waiting = sing(narrow)
    wait_for(lambda: narrow.metric("num_requests_waiting") == 1, "queued")
    waiting.close()
    wait_for(lambda: narrow.metric("num_requests_waiting") == 0, "gone from the queue")
    for stream in streams:
        stream.close()
