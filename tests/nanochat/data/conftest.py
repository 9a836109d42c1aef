"""Shards of realistic text, and a server for them."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.data.shards import write_shard

from .server import Server

SENTENCES = (
    "The river rose in the night and the bridge was closed until noon.",
    "A function returns the first value that satisfies the given condition.",
    "She counted the letters of the word twice and wrote the number down.",
    "Every shard is read once, and the last one is kept for validation.",
    "When the buffer is full, the oldest entry is replaced by the new one.",
)


def make_shards(folder: Path, count: int = 3, documents: int = 40) -> list[Path]:
    """Write `count` parquet shards with the same content every time."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    paths = [folder / f"shard_{i:05d}.parquet" for i in range(count)]
    for path in paths:
        write_shard(
            path, [" ".join(rng.choices(SENTENCES, k=rng.randint(3, 12))) + f" {rng.random()}" for _ in range(documents)]
        )
    return paths


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    return make_shards(tmp_path / "text")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A running server for three shards."""
    make_shards(tmp_path / "www")
    server = Server(tmp_path / "www")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    server.server_close()
    thread.join()
