"""Prometheus metrics of a service's own HTTP requests, for every service that is a FastAPI application."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN = "unknown"  # addresses and methods that a client makes up would be labels without number


class RequestMetrics:
    """One registry per application, so that tests can run several applications in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("nanochat_http_requests", "Answered requests", labels, registry=self.registry)
        self.latency = Histogram(
            "nanochat_http_request_seconds",
            "From arrival to the first byte of the answer",
            ("method", "route"),
            buckets=LATENCY_BUCKETS_S,
            registry=self.registry,
        )


class TimeRequests:
    """Middleware that counts requests and times their first byte. A live stream ends much later."""

    def __init__(self, app: ASGIApp, metrics: RequestMetrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        method = scope["method"] if scope["method"] in METHODS else UNKNOWN

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", UNKNOWN)
                self._metrics.requests.labels(method, route, str(message["status"])).inc()
                self._metrics.latency.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        return await self._app(scope, receive, timed)
