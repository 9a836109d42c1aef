"""Clients that read their answers late or never, and answers that take long to write."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from nanochat.contract.contract import Artifact
from nanochat.engine.request import Sampling
from services.inference.engines.request import AT_ONCE, EngineRequest, Order, RowOutput
from services.inference.source import fixed
from tests.inference.heart import FOREVER
from tests.inference.server import KEY, Server, serving, wait_for

SING: dict[str, Any] = {"messages": [{"role": "user", "content": FOREVER}], "temperature": 0}


def test_a_reader_that_was_behind_lets_others_take_their_turns() -> None:
    outputs = 100 * AT_ONCE

    async def main() -> tuple[list[int], int]:
        request = EngineRequest(Order("m", [1], Sampling(), outputs))
        request.put([RowOutput(0, token) for token in range(outputs)])
        request.end()
        read: list[int] = []
        turns = 0

        async def reader() -> None:
            async for some in request.outputs():
                read.extend(output.token or 0 for output in some)

        reading = asyncio.create_task(reader())
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        await reading
        return read, turns

    read, turns = asyncio.run(main())
    assert read == list(range(outputs))
    assert turns >= 99


def test_a_client_that_never_reads_is_cut_off(model_artifact: Artifact, tokenizer_artifact: Artifact) -> None:
    with serving(fixed(model_artifact.dir, tokenizer_artifact.dir), reading_timeout_s=0.3) as server:
        server.wait_until_ready()
        body = json.dumps({**SING, "max_tokens": 900, "n": 8, "stream": True, "logprobs": True, "top_logprobs": 20}).encode()
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            link.connect((urlsplit(server.url).hostname, urlsplit(server.url).port))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n"
            link.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
            wait_for(lambda: server.metric("request_cancelled_total") == 1, "cut off")
            server.wait_until_idle()


def test_log_probabilities_of_a_long_answer(server: Server) -> None:
    asked = {**SING, "max_tokens": 2 * AT_ONCE, "logprobs": True, "top_logprobs": 2}
    answer = server.http.post("/v1/chat/completions", json=asked).json()
    (choice,) = answer["choices"]
    scored = choice["logprobs"]["content"]
    assert len(scored) == answer["usage"]["completion_tokens"] == 2 * AT_ONCE
    assert "".join(token["token"] for token in scored) == choice["message"]["content"]


def test_events_have_no_character_at_which_clients_end_a_line(server: Server) -> None:
    text = "a\x85b\u2028c\u2029d"
    answer = server.http.post("/v1/chat/completions", json={**SING, "guided_choice": [text], "stream": True})
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines[:-1]]
    assert ("".join(delta.get("content", "") for delta in deltas), lines[-1]) == (text, "[DONE]")
