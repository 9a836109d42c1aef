"""A receiver of webhooks: a real HTTP server on loopback, which keeps what arrives and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Arrived:
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answer` sends the response; replace it to send another one."""

    port: int
    answer: Answer
    arrived: list[Arrived] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.arrived]


def status(code: int, **headers: str) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@contextmanager
def receiving(address: str = "127.0.0.1", tls: SSLContext | None = None) -> Iterator[Receiver]:
    receiver = Receiver(0, status(204))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.arrived.append(Arrived(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            try:
                receiver.answer(self)
            except OSError:  # the sender has read enough
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
