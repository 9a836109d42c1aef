"""`python -m services.ui` serves the dashboard and the chat. It is a client of the control API and the inference service."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before the import of gradio, which reads it

import uvicorn
from pydantic import ValidationError
from pydantic_settings import CliApp

from client.errors import ClientError
from client.settings import discover
from services import logs
from services.ui.access.sessions import Sessions, secret_of
from services.ui.app import create_app
from services.ui.platform import Platforms
from services.ui.settings import Settings

BAD_INPUT = 64


def main() -> int:
    try:
        logs.configure()
        settings, platform = CliApp.run(Settings), discover()
    except (ValidationError, ClientError) as err:
        sys.stderr.write(f"services.ui: {err}\n")
        return BAD_INPUT
    secret = settings.session_key.get_secret_value() if settings.session_key else secret_of(platform.home)
    hosts = [name.strip().lower() for name in settings.ui_hosts.split(",") if name.strip()]
    uvicorn.run(
        create_app(Platforms(platform.api_url, platform.inference_url), Sessions(secret), hosts, settings.poll_s),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
