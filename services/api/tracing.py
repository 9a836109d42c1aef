"""Where the API makes spans: around each request, at the submission of a run, and around each dispatch of a stage."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.db import SessionFactory
from controlplane.models import Stage
from services.tracing import Nothing, Tracing

Dispatch = Callable[[int, str], None]


class TraceRequests:
    """Middleware. The span of a live stream lasts as long as the stream."""

    def __init__(self, app: ASGIApp, tracing: Tracing):
        self._app, self._tracing = app, tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        with self._tracing.request(scope["method"], Headers(scope=scope).get("traceparent")) as span:

            async def noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "unknown")
                    run = scope.get("path_params", {}).get("run_id")
                    span.note(route=route, status=message["status"], **({"run": str(run)} if run else {}))
                await send(message)

            return await self._app(scope, receive, noted)


def traced_dispatch(send: Dispatch, ledger: SessionFactory, tracing: Tracing) -> Dispatch:
    """`send` with a span around each call, if anything is traced."""
    if isinstance(tracing, Nothing):
        return send

    def traced(stage_id: int, queue: str) -> None:
        with ledger() as session:
            run, stage = session.execute(select(Stage.run_id, Stage.name).where(Stage.id == stage_id)).one()
        with tracing.of_run("dispatch", run, stage=stage, queue=queue):
            send(stage_id, queue)

    return traced
