"""Traces for OpenTelemetry: a span per request, and one trace per run from its submission over every dispatch to every attempt.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set; the packages are the extra `otel`. Without them this module still imports, and `start`
says what to install. The ids of a run's trace are derived from the run's id, so no message and no row has to carry them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

log = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
Attributes = dict[str, str | int]


class Span(Protocol):
    def note(self, **attributes: str | int) -> None:
        """Add attributes, `nanochat.<name>`."""


class Tracing(Protocol):
    """All methods are cheap and raise nothing: spans are sent by a thread, and lost if nobody receives them."""

    def submitted(self, run: str) -> None:
        """Begin the trace of a run. It is linked to the request that is being answered."""

    @contextmanager
    def of_run(self, name: str, run: str, **attributes: str | int) -> Iterator[Span]:
        """A span in the trace of a run."""

    @contextmanager
    def request(self, method: str, traceparent: str | None) -> Iterator[Span]:
        """A span of an HTTP request, in the caller's trace if it names one."""

    def close(self) -> None:
        """Send what is left, for at most a few seconds."""


class Nothing:
    """Tracing that is off."""

    def note(self, **attributes: str | int) -> None:
        pass

    def submitted(self, run: str) -> None:
        pass

    @contextmanager
    def of_run(self, name: str, run: str, **attributes: str | int) -> Iterator[Span]:
        yield self

    @contextmanager
    def request(self, method: str, traceparent: str | None) -> Iterator[Span]:
        yield self

    def close(self) -> None:
        pass


def start(service: str) -> Tracing:
    """Tracing of this process, as the environment wants it."""
    if not os.environ.get(ENDPOINT):
        return Nothing()
    try:
        from services.tracing.otel import OpenTelemetry
    except ImportError as err:
        log.error(
            "%s is set, but %s is missing, so nothing is traced: pip install 'nanochat-platform[otel]'", ENDPOINT, err.name
        )
        return Nothing()
    return OpenTelemetry(service)
