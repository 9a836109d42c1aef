"""The control API's command line: `python -m services.api [serve|migrate|openapi]`.

`serve`, the default, migrates the database and serves the API. `migrate` only migrates the database. `openapi` prints the OpenAPI
document.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import sys
import threading
import time
from types import FrameType

import uvicorn
from pydantic import ValidationError
from sqlalchemy.exc import OperationalError

from controlplane import keys
from controlplane.db import make_engine, migrate, sessions
from services import logs
from services.api.app import create_app
from services.api.settings import Settings

DATABASE_WAIT_S = 60.0  # for a database that does not answer yet
SHUTDOWN_S = 10  # for requests in flight

log = logging.getLogger("services.api")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.api", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("serve", "migrate", "openapi"), default="serve")
    command = parser.parse_args(argv).command
    if command == "openapi":
        sys.stdout.write(document())
        return 0
    try:
        logs.configure()
        settings = Settings()
    except ValidationError as err:
        for error in err.errors():
            sys.stderr.write(f"NANOCHAT_{str(error['loc'][0]).upper()}: {error['msg']}\n")
        return 2
    if not _migrate_when_up(settings.database_url):
        return 1
    if command == "serve":
        ensure_key(settings)
        serve(settings)
    return 0


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, which end open streams at once so that these do not delay the shutdown."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    # What was made until here stays. The collector need not look at it again whenever an answer makes thousands of objects: that is
    # half of the Python time of a chart of 4,000 points.
    gc.collect()
    gc.freeze()
    _Server(config, app.state.stopping).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: threading.Event):
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping.set()
        super().handle_exit(sig, frame)


def ensure_key(settings: Settings) -> None:
    """Make the first API key unless there is one."""
    engine = make_engine(settings.database_url)
    try:
        with sessions(engine).begin() as session:
            keys.ensure_first(session, settings.admin_key_file)
    finally:
        engine.dispose()
    log.info("API key: %s", settings.admin_key_file)


def document() -> str:
    """The content of `openapi.json`."""
    app = create_app(Settings(database_url="postgresql+psycopg://"))
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def _migrate_when_up(url: str) -> bool:
    deadline = time.monotonic() + DATABASE_WAIT_S
    while True:
        try:
            migrate(url)
        except OperationalError as err:
            if time.monotonic() > deadline:
                sys.stderr.write(f"NANOCHAT_DATABASE_URL: the database does not answer: {err.orig}\n")
                return False
            log.info("waiting for the database")
            time.sleep(1.0)
        else:
            return True


if __name__ == "__main__":
    raise SystemExit(main())
