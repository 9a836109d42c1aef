"""A server on loopback that gives prepared answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DROP = 0  # in place of a status: close the connection without an answer


class Scripted(ThreadingHTTPServer):
    """Gives these answers in turn, and the last one from then on. A number is a status, a text is the body of a 200 as it is,
    anything else its JSON."""

    def __init__(self, *answers: int | str | dict[str, Any] | list[Any] | None, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.answers, self.asked = answers, 0
        self.content_type = "application/json"
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_GET(self) -> None:
        answer = self.server.answers[min(self.server.asked, len(self.server.answers) - 1)]
        self.server.asked += 1
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if answer == DROP:
            self.close_connection = True
            return
        said = {"title": f"answer {self.server.asked}"} if isinstance(answer, int) else answer
        body = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Type", self.server.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def scripted(*answers: int | str | dict[str, Any] | list[Any] | None, port: int = 0) -> Iterator[Scripted]:
    with Scripted(*answers, port=port) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
