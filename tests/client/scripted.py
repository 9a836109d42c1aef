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
    """Gives these answers in turn, and the last one from then on. A number is a status, anything else is the body of a 200."""

    def __init__(self, *answers: int | dict[str, Any] | list[Any] | None, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.answers, self.asked = answers, 0
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
        body = json.dumps(answer if not isinstance(answer, int) else {"title": f"answer {self.server.asked}"}).encode()
        self.send_response(answer if isinstance(answer, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def scripted(*answers: int | dict[str, Any] | list[Any] | None, port: int = 0) -> Iterator[Scripted]:
    with Scripted(*answers, port=port) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
