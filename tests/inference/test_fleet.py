"""The service as it is started in earnest: an HTTP process and two engine processes, under load, and with all that can happen."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from nanochat.contract.contract import Artifact
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SELF, WHO
from tests.inference.server import KEY, Server, wait_for

ROOT = Path(__file__).parents[2]
START_S = 240.0  # two processes import torch, on a machine that may be crowded
STREAMS = 500


@dataclass(frozen=True)
class Service(Server):
    process: psutil.Process

    def engines(self) -> list[psutil.Process]:
        return self.process.children()

    def ask(self, question: str, **params: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": question}], "temperature": 0, **params}
        return self.http.post("/v1/chat/completions", json=body)

    def wait_until_whole(self) -> None:
        wait_for(lambda: self.metric("engine_up") == 2, "both engine processes up", START_S)
        self.wait_until_ready()


@contextmanager
def started(model: Artifact, tokenizer: Artifact, *options: object) -> Iterator[Service]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "--model",
        model.path,
        "--tokenizer",
        tokenizer.path,
        "--port",
        port,
        "--device",
        "cpu",
        "--threads",
        1,
        *options,
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")} | {"NANOCHAT_API_KEY": KEY}
    process = subprocess.Popen([sys.executable, "-m", "services.inference", *map(str, command)], cwd=ROOT, env=env)
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as http:
            service = Service(url, http, KEY, psutil.Process(process.pid))
            wait_for(lambda: _ready(service), "ready", START_S)
            yield service
    finally:
        process.kill()
        process.wait()


def _ready(service: Service) -> bool:
    try:
        return service.http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def service(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Iterator[Service]:
    options = ("--replicas", 2, "--max-waiting", STREAMS, "--step-timeout-s", 2)
    with started(model_artifact, tokenizer_artifact, *options) as service:
        service.wait_until_whole()
        yield service
        engines = service.engines()
        service.process.kill()
        _, alive = psutil.wait_procs(engines, timeout=30)
        assert not alive, "engine processes end with a service that is killed"


@contextmanager
def load(service: Service, clients: int) -> Iterator[Counter[str]]:
    """Clients that ask one thing after the other. Counts the answers: `right`, an error's code, or what went wrong."""
    ends: Counter[str] = Counter()
    enough = threading.Event()

    def ask(number: int) -> None:
        question, answer = ((WHO, SELF), (COUNT, NUMBERS))[number % 2]
        while not enough.is_set():
            response = service.ask(question)
            if response.status_code == 200:
                ends["right" if response.json()["choices"][0]["message"]["content"] == answer else "wrong"] += 1
            else:
                ends[str(response.json()["error"]["code"])] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield ends
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def test_an_engine_process_that_is_killed_takes_no_request_with_it_in_silence(service: Service) -> None:
    with load(service, 12) as ends:
        wait_for(lambda: ends["right"] > 12, "under load")
        os.kill(service.engines()[0].pid, signal.SIGKILL)
        wait_for(lambda: service.metric("engine_up") == 1, "one engine process gone")
        before = ends["right"]
        wait_for(lambda: ends["right"] > before + 12, "the other one answers")
        service.wait_until_whole()
    assert set(ends) <= {"right", "engine_restarting"}
    assert ends["engine_restarting"] <= 12
    assert service.ask(WHO).status_code == 200


def test_an_engine_process_that_is_stuck_is_replaced(service: Service) -> None:
    starts = service.metric("engine_starts_total")
    with load(service, 8) as ends:
        wait_for(lambda: ends["right"] > 8, "under load")
        service.engines()[0].suspend()
        wait_for(lambda: service.metric("engine_starts_total") == starts + 1, "restarted", START_S)
        service.wait_until_whole()
    assert set(ends) <= {"right", "engine_restarting"}


def test_nobody_answers_while_all_engine_processes_are_gone(service: Service) -> None:
    for engine in service.engines():
        engine.kill()
    wait_for(lambda: service.http.get("/ready").status_code == 503, "not ready")
    refused = service.ask(WHO)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine_restarting")
    assert int(refused.headers["retry-after"]) > 0
    assert service.http.get("/health").status_code == 200
    service.wait_until_whole()
    assert service.ask(WHO).json()["choices"][0]["message"]["content"] == SELF


def test_500_streams_that_break_off_anywhere_leave_nothing_behind(service: Service) -> None:
    def open_files() -> int:
        return sum(process.num_fds() for process in (service.process, *service.engines()))

    service.wait_until_idle()
    before, tasks = open_files(), service.metric("event_loop_tasks")
    ends = asyncio.run(_streams(service.url))
    assert sum(ends.values()) == STREAMS
    assert ends["whole"] > STREAMS / 10
    assert ends["broken off"] > STREAMS / 3
    assert set(ends) == {"whole", "broken off"}
    service.wait_until_idle()
    wait_for(lambda: service.metric("kv_blocks_used") == 0, "all blocks free")
    assert service.metric("num_requests_waiting") == service.metric("waiting_prompt_tokens") == 0
    wait_for(lambda: service.metric("event_loop_tasks") <= tasks, "no task left")
    wait_for(lambda: open_files() <= before, "all connections closed")


async def _streams(url: str) -> Counter[str]:
    rng = random.Random(5)
    breaks = [rng.choice((None, 0, 1, 3, 8, 20)) for _ in range(STREAMS)]  # after so many events
    return Counter(await asyncio.gather(*(_stream(url, break_after) for break_after in breaks)))


async def _stream(url: str, break_after: int | None) -> str:
    body = {"messages": [{"role": "user", "content": FOREVER}], "temperature": 0, "max_tokens": 24, "stream": True}
    sent = json.dumps(body).encode()
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n".encode() + sent)
    await writer.drain()
    events = 0
    last = b""
    try:
        while break_after is None or events < break_after:
            line = await reader.readline()
            if not line:
                return "whole" if last == b"data: [DONE]" else f"cut after {last!r}"
            if line.startswith(b"data:"):
                events += 1
                last = line.strip()
        return "broken off"
    finally:
        writer.transport.abort()


def test_a_short_answer_does_not_wait_for_16_long_ones(service: Service) -> None:
    messages: list[Any] = [{"role": "user", "content": FOREVER}]
    streams = [
        service.openai().chat.completions.create(
            model="default", messages=messages, temperature=0, stream=True, extra_headers={"Connection": "close"}
        )
        for _ in range(16)
    ]
    try:
        for stream in streams:
            next(chunk for chunk in stream if chunk.choices[0].delta.content)
        answer = service.ask(WHO, max_tokens=1)
        assert answer.status_code == 200
        assert answer.elapsed.total_seconds() < 1.0
    finally:
        for stream in streams:
            stream.close()


def test_a_stop_lets_the_answers_finish_and_refuses_new_ones(model_artifact: Artifact, tokenizer_artifact: Artifact) -> None:
    with started(model_artifact, tokenizer_artifact, "--drain-s", 60) as service:
        engines = service.engines()
        messages: list[Any] = [{"role": "user", "content": FOREVER}]
        stream = service.openai().chat.completions.create(
            model="default", messages=messages, temperature=0, max_tokens=700, stream=True
        )
        next(stream)
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.http.get("/ready").status_code == 503, "draining")
        refused = service.ask(WHO)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert int(refused.headers["retry-after"]) > 0
        assert service.http.get("/health").status_code == 200
        *_, last = stream
        assert last.choices[0].finish_reason == "length"
        service.process.wait(timeout=30)
        assert not any(engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE for engine in engines)
