"""/health, /ready and /metrics of a worker, on a port of its own if NANOCHAT_PROBE_PORT is set.

The worker is a Celery process, not an HTTP service. So this is the server of the standard library, in one thread; it only reads what the
keeper has left, and nothing that it does can hold up a stage.
"""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

OLDEST_S = 120.0  # of the file that the keeper touches with every heartbeat, as in the probes of k8s/


class Probes:
    """Raises OSError if the port is taken."""

    def __init__(self, address: tuple[str, int], *, alive: Path, ready: Path, registry: CollectorRegistry):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    self._state(_is_fresh(alive), "ok", "the keeper sends no heartbeats")
                elif self.path == "/ready":
                    self._state(_is_fresh(ready), "ready", "the ledger does not answer, or the worker drains")
                elif self.path == "/metrics":
                    self._send(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                else:
                    self._send(404, "text/plain", b"/health, /ready or /metrics\n")

            def _state(self, well: bool, yes: str, no: str) -> None:
                self._send(200 if well else 503, "application/json", json.dumps({"status": yes if well else no}).encode())

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Every probe would be a line."""

        self._server = ThreadingHTTPServer(address, Handler)
        # Stages are forks of this process. One that outlives it must not hold the port.
        os.register_at_fork(after_in_child=self._server.socket.close)
        self._thread = threading.Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self.port: int = self._server.server_address[1]

    def start(self) -> None:
        self._thread.start()


def _is_fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < OLDEST_S
    except OSError:
        return False
