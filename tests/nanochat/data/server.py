"""An HTTP server that fails on demand: it stalls, breaks the connection, refuses, corrupts, or ignores ranges."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# A fault gets (handler, content of the file, first byte requested) and sends the answer itself.
Fault = Callable[["Handler", bytes, int], None]


class Server(ThreadingHTTPServer):
    """Serves the files of a folder. `faults[name]` lists the faults of the first requests for that file; None is no fault."""

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.faults: dict[str, list[Fault | None]] = {}
        self.requests: Counter[str] = Counter()
        self.ranges: list[tuple[str, str | None]] = []  # (file, Range header) in order
        self.etag = '"v1"'
        self.release = threading.Event()  # ends stalled answers
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that give up on a stalled answer."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        with self.server.lock:
            self.server.requests[name] += 1
            self.server.ranges.append((name, self.headers.get("Range")))
            queue = self.server.faults.get(name, [])
            fault = queue.pop(0) if queue else None
        path = self.server.root / name.partition("?")[0]
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        same = self.headers.get("If-Range") in (None, self.server.etag)
        start = int(wanted[1]) if wanted and same else 0
        if fault is not None:
            fault(self, data, start)
        else:
            self.answer(data, start)

    def answer(self, data: bytes, start: int, *, declared: int | None = None) -> None:
        """Send a file from byte `start` on. `declared` is the file's size in the headers, if that is not the true one."""
        total = len(data) if declared is None else declared
        if start >= total > 0 and start:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def log_message(self, format: str, *args: Any) -> None:
        pass


def cut_after(count: int) -> Fault:
    """Close the connection after `count` bytes of the body."""

    def fault(handler: Handler, data: bytes, start: int) -> None:
        handler.answer(data[: start + count], start, declared=len(data))
        handler.close_connection = True

    return fault


def status(code: int, retry_after: str | None = None) -> Fault:
    def fault(handler: Handler, _data: bytes, _start: int) -> None:
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return fault


def corrupt(handler: Handler, data: bytes, start: int) -> None:
    """Send the right number of wrong bytes."""
    handler.answer(bytes(b ^ 0xFF for b in data), start)


def ignore_range(handler: Handler, data: bytes, _start: int) -> None:
    handler.answer(data, 0)


def stall_after(count: int) -> Fault:
    """Send `count` bytes of the body, then nothing until `release` is set."""

    def fault(handler: Handler, data: bytes, start: int) -> None:
        handler.answer(data[: start + count], start, declared=len(data))
        handler.wfile.flush()
        handler.server.release.wait(60)
        handler.close_connection = True

    return fault
