"""The real app in a real uvicorn server on a free loopback port, in a thread of this process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from client import Client
from controlplane import db
from services.api.__main__ import ensure_key
from services.api.app import create_app
from services.api.settings import Settings


@dataclass(frozen=True)
class Api:
    """A running API: its URL and first key, an httpx client that sends the key, and its ledger."""

    url: str
    key: str
    http: httpx.Client
    ledger: db.SessionFactory
    app: FastAPI
    home: Path

    def client(self) -> Client:
        return Client(self.url, self.key)


@contextmanager
def serving(database_url: str, redis_url: str, home: Path, **more: Any) -> Iterator[Api]:
    """`more` are further settings."""
    settings = Settings(database_url=database_url, redis_url=redis_url, home=home, **more)
    ensure_key(settings)
    key = settings.admin_key_file.read_text(encoding="utf-8").strip()
    app = create_app(settings)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the app did not start"
        assert time.monotonic() < deadline, "the app did not start in time"
        time.sleep(0.01)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    engine = db.make_engine(database_url)
    try:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20) as http:
            yield Api(url, key, http, db.sessions(engine), app, home)
    finally:
        engine.dispose()
        app.state.stopping.set()
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
