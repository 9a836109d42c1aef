"""Logging of the four services: one line for each event on standard error, as text for people or JSON for machines.

Our modules and the libraries all log through the standard library, so uvicorn, Celery, SQLAlchemy and Alembic share the
format. A caller binds ids with `structlog.contextvars.bound_contextvars(run=..., stage=..., attempt=...)`; every line
that is logged meanwhile carries them.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal

from pydantic_settings import BaseSettings, SettingsConfigDict
from structlog.contextvars import merge_contextvars
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import JSONRenderer, TimeStamper, format_exc_info
from structlog.stdlib import ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import Processor

# Their INFO lines say nothing about the platform: one for each request that httpx sends, two for each start of Alembic.
WARNINGS_ONLY = ("httpx", "alembic")

# The password in a URL, the value of an Authorization header, an API key of ours (see controlplane/keys.py).
SECRETS = re.compile(r"(://[^\s:/@]*:)[^\s/\"'\\]+(?=@)|(\bBearer\s+)[^\s\"',\\]+|(\bnc_)[\w-]{40,}", re.IGNORECASE)


class LogSettings(BaseSettings):
    """NANOCHAT_LOG."""

    model_config = SettingsConfigDict(env_prefix="NANOCHAT_", extra="ignore")

    log: Literal["text", "json"] = "text"


def configure() -> None:
    """Set up the logging of this process. Raises pydantic.ValidationError when NANOCHAT_LOG is neither text nor json."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(LogSettings().log, colors=sys.stderr.isatty()))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in WARNINGS_ONLY:
        logging.getLogger(name).setLevel(logging.WARNING)


def formatter(style: Literal["text", "json"], *, colors: bool = False) -> logging.Formatter:
    # structlog's own default prints the local variables of every frame of a traceback, which may hold secrets.
    text: list[Processor] = [ConsoleRenderer(colors=colors, pad_event_to=0, exception_formatter=plain_traceback)]
    json: list[Processor] = [format_exc_info, JSONRenderer(ensure_ascii=False)]
    return ProcessorFormatter(
        foreign_pre_chain=[merge_contextvars, add_logger_name, add_log_level, TimeStamper(fmt="iso", utc=True)],
        processors=[ProcessorFormatter.remove_processors_meta, *(json if style == "json" else text), _hide_secrets],
    )


def _hide_secrets(logger: Any, method: str, line: Any) -> str:
    """The last processor: it sees the whole line, the traceback included."""
    return SECRETS.sub(lambda found: f"{found[1] or found[2] or found[3]}***", str(line))
