"""What never reaches a route: a wrong key, a body that is too large, too slow or too complex, headers that do not end."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from nanochat.contract.contract import Artifact
from services.inference.source import fixed
from tests.inference.heart import SELF, WHO
from tests.inference.server import KEY, Server, serving

MIB = 1 << 20


@pytest.fixture(scope="module")
def strict(model_artifact: Artifact, tokenizer_artifact: Artifact) -> Iterator[Server]:
    bounds: dict[str, Any] = {"max_body_bytes": MIB, "max_body_values": 5_000, "body_timeout_s": 0.5, "headers_timeout_s": 0.5}
    with serving(fixed(model_artifact.dir, tokenizer_artifact.dir), **bounds) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(autouse=True)
def _it_still_answers(strict: Server) -> Iterator[None]:
    yield
    body = {"messages": [{"role": "user", "content": WHO}], "temperature": 0}
    answer = strict.http.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == SELF


def exchange(server: Server, sent: bytes, deadline_s: float = 10.0) -> tuple[int, dict[str, str], Any]:
    """Send these bytes and nothing more. Status, headers and JSON of the answer, after which the server has hung up."""
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), timeout=deadline_s) as link:
        link.sendall(sent)
        received = b""
        while data := link.recv(1 << 16):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), json.loads(body)


def post(*headers: str, key: str = KEY) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", *headers]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode()


def test_a_wrong_key_is_told_before_the_body_has_come(strict: Server) -> None:
    status, headers, body = exchange(strict, post(f"Content-Length: {60 * MIB}", "Expect: 100-continue", key="wrong"))
    assert (status, headers["connection"], body["error"]["code"]) == (401, "close", "invalid_api_key")


def test_a_client_that_sends_a_large_body_all_the_same_gets_to_see_why(strict: Server) -> None:
    body = b"[" + b"[]," * (2 * MIB) + b"[]]"
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{strict.url}/v1/chat/completions", content=body, headers=headers, timeout=20)
    assert answer.status_code == 401
    answer = strict.http.post("/v1/chat/completions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert str(MIB) in answer.json()["error"]["message"]


def test_the_length_that_is_promised_is_enough_to_refuse(strict: Server) -> None:
    status, _, body = exchange(strict, post(f"Content-Length: {MIB + 1}"))
    assert (status, body["error"]["code"]) == (413, "body_too_large")


def test_a_body_without_a_length_is_counted(strict: Server) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    status, _, body = exchange(strict, post("Transfer-Encoding: chunked") + chunk * 17)
    assert (status, body["error"]["code"]) == (413, "body_too_large")


def test_a_body_that_stays_away(strict: Server) -> None:
    status, headers, body = exchange(strict, post("Content-Length: 100") + b'{"messages": [')
    assert (status, headers["connection"], body["error"]["code"]) == (408, "close", "request_timeout")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_stay_away(strict: Server, sent: bytes) -> None:
    status, _, body = exchange(strict, sent)
    assert (status, body["error"]["code"]) == (408, "request_timeout")


def test_headers_of_a_second_request_that_stay_away(strict: Server) -> None:
    with socket.create_connection((urlsplit(strict.url).hostname, urlsplit(strict.url).port), timeout=10) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in link.recv(1 << 16)
        link.sendall(b"GET /health HTT")
        assert b" 408 " in link.recv(1 << 16)
        assert link.recv(1 << 16) == b""


def test_headers_without_an_end(strict: Server) -> None:
    line = b"X-More: " + b"x" * (64 << 10) + b"\r\n"
    with socket.create_connection((urlsplit(strict.url).hostname, urlsplit(strict.url).port), timeout=10) as link:
        link.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            link.sendall(line * 1000)  # 64 MB, if nobody stops it


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)
def test_what_is_not_http(strict: Server, sent: bytes) -> None:
    status, headers, body = exchange(strict, sent)
    assert (status, headers["connection"], body["error"]["code"]) == (400, "close", "invalid_http")


def test_a_client_that_proposes_http_2_with_its_request(strict: Server) -> None:
    """Java's HttpClient does. The proposal is passed over, and the body is read."""
    body = json.dumps({"messages": [{"role": "user", "content": WHO}], "temperature": 0}).encode()
    proposal = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c")
    with socket.create_connection((urlsplit(strict.url).hostname, urlsplit(strict.url).port), timeout=10) as link:
        for _ in range(2):  # on one connection
            link.sendall(post(*proposal, f"Content-Length: {len(body)}") + body)
            received = b""
            while SELF.encode() not in received:
                received += link.recv(1 << 16) or pytest.fail(f"hung up after {received!r}")
            assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("header", [f"Authorization: bearer   {KEY}  ", f"X-Api-Key:  {KEY} "])
def test_white_space_around_a_key(strict: Server, header: str) -> None:
    status, _, _ = exchange(strict, f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n".encode())
    assert status == 200


def test_too_many_values_are_not_parsed(strict: Server) -> None:
    body = json.dumps({"messages": [[] for _ in range(200_000)]}).encode()
    answer = strict.http.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "body_too_complex")


def test_bodies_that_are_refused_do_not_hold_up_the_others(strict: Server) -> None:
    body, enough = b"[" + b"[]," * MIB + b"[]]", threading.Event()

    def send() -> None:
        while not enough.is_set():
            httpx.post(f"{strict.url}/v1/chat/completions", content=body, timeout=20)

    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    try:
        waits = []
        for _ in range(20):
            began = time.monotonic()
            assert strict.http.get("/health").status_code == 200
            waits.append(time.monotonic() - began)
    finally:
        enough.set()
        for sender in senders:
            sender.join()
    assert sorted(waits)[10] < 1.0
