"""Tracing by OpenTelemetry's SDK, exported as OTLP over HTTP. Only `services.tracing` imports this module."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.tracing import Span

EXPORT_TIMEOUT_S = 5.0
FLUSH_MS = 5000

_root_of: ContextVar[str | None] = ContextVar("root_of", default=None)  # the run whose first span is being made


def context_of(run: str) -> SpanContext:
    """The first span of a run's trace."""
    digest = hashlib.sha256(run.encode()).digest()
    trace_id, span_id = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


class _Ids(RandomIdGenerator):
    """Random ids, but for the first span of a run's trace."""

    def generate_trace_id(self) -> int:
        run = _root_of.get()
        return int(context_of(run).trace_id if run else super().generate_trace_id())

    def generate_span_id(self) -> int:
        run = _root_of.get()
        return int(context_of(run).span_id if run else super().generate_span_id())


class _Span:
    def __init__(self, span: trace.Span):
        self._span = span

    def note(self, **attributes: str | int) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(f"nanochat.{name}", value)
        if "status" in attributes and str(attributes["status"]).startswith("5"):
            self._span.set_status(trace.StatusCode.ERROR)


class OpenTelemetry:
    def __init__(self, service: str):
        resource = Resource.create({SERVICE_NAME: f"nanochat-{service}"})
        self._provider = TracerProvider(resource=resource, id_generator=_Ids())
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S)))
        self._tracer = self._provider.get_tracer("nanochat")

    def submitted(self, run: str) -> None:
        now = trace.get_current_span().get_span_context()
        token = _root_of.set(run)
        try:
            links = [Link(now)] if now.is_valid else []
            span = self._tracer.start_span("run", context=trace.set_span_in_context(trace.INVALID_SPAN), links=links)
        finally:
            _root_of.reset(token)
        _Span(span).note(run=run)
        span.end()

    @contextmanager
    def of_run(self, name: str, run: str, **attributes: str | int) -> Iterator[Span]:
        parent = trace.set_span_in_context(NonRecordingSpan(context_of(run)))
        with self._tracer.start_as_current_span(name, context=parent) as span:
            made = _Span(span)
            made.note(run=run, **attributes)
            yield made

    @contextmanager
    def request(self, method: str, traceparent: str | None) -> Iterator[Span]:
        carrier = {"traceparent": traceparent} if traceparent else {}
        caller = TraceContextTextMapPropagator().extract(carrier)
        with self._tracer.start_as_current_span(method, context=caller, kind=SpanKind.SERVER) as span:
            yield _Span(span)

    def close(self) -> None:
        self._provider.force_flush(FLUSH_MS)
        self._provider.shutdown()
