"""An HTTP server of shards that can be made busy, so that a real `data` stage runs for as long as a test needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Enough words that some of them are held out for tests.
WORDS = (
    "the quick brown fox jumps over the lazy dog while seven small birds watch from their high branch and every child in the "
    "garden counts them twice before lunch because nobody knows where they will sleep tonight"
)


class ShardServer(ThreadingHTTPServer):
    """Serves a few small parquet shards. While `busy` is set it answers 503 with Retry-After: `retry_after` seconds."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.retry_after = folder, 60
        self.busy, self.asked = threading.Event(), threading.Event()
        for index in range(3):
            text = [f"Document {n} of shard {index}: {WORDS}." for n in range(200)]
            pq.write_table(pa.table({"text": text}), folder / f"shard_{index:05d}.parquet")

    @property
    def overrides(self) -> dict[str, Any]:
        """Overrides for a recipe that takes its text from here, and little of it."""
        source = {"kind": "http", "base_url": f"http://127.0.0.1:{self.server_port}", "train_shards": 2, "val_index": 2}
        return {
            "data.source": source,
            "data.tok_chars": 5000,
            "tokenizer.vocab_size": 300,
            "tokenizer.max_chars": 10_000,
        }


class _Handler(BaseHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        self.server.asked.set()
        path = self.server.folder / self.path.lstrip("/")
        if self.server.busy.is_set():
            self.send_response(503)
            self.send_header("Retry-After", str(self.server.retry_after))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif path.is_file():
            body = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def shard_server(folder: Path) -> Iterator[ShardServer]:
    folder.mkdir(parents=True, exist_ok=True)
    server = ShardServer(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
