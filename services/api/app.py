"""The control API. Endpoints parse the request, call the ledger and answer; `create_app` puts the parts together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from structlog.contextvars import bind_contextvars

from controlplane import budgets, dispatcher, folding, history, reaper, sweeps
from controlplane.db import make_engine, sessions
from controlplane.keys import secret_in
from services import tracing
from services.api import health, openapi, problems
from services.api.background import LoopThread
from services.api.body_limit import BodyLimit
from services.api.catalog import endpoints as catalog
from services.api.feed import Feed
from services.api.keys import endpoints as keys
from services.api.leaderboard import endpoints as leaderboard
from services.api.models import endpoints as models
from services.api.publisher import Publisher
from services.api.rate_limit import RateLimit
from services.api.recipes import endpoints as recipes
from services.api.runs import actions, care, forks, records, report
from services.api.runs import endpoints as runs
from services.api.runs.live import RunFeed
from services.api.settings import Settings
from services.api.storage import endpoints as storage
from services.api.storage import files
from services.api.sweeps import actions as sweep_actions
from services.api.sweeps import endpoints as sweep_endpoints
from services.api.telemetry import Telemetry
from services.api.tracing import TraceRequests, traced_dispatch
from services.api.webhooks import endpoints as webhooks
from services.api.webhooks.courier import Courier
from services.api.webhooks.sender import Sender
from services.api.webhooks.signing import Secrets
from services.api.workers import endpoints as workers
from services.http_metrics import TimeRequests

MAX_BODY_BYTES = 1 << 20
DESCRIPTION = "POST a recipe, get a ChatGPT you trained yourself. Every error is a problem detail (RFC 9457)."


def create_app(settings: Settings) -> FastAPI:
    """Make the app. Its lifespan opens the database and starts the control loops; the schema must be current by then."""
    app = FastAPI(
        title="nanochat control API",
        version="1",
        description=DESCRIPTION,
        lifespan=_lifespan,
        generate_unique_id_function=_operation_id,
        redirect_slashes=False,
        dependencies=[Depends(_log_run)],
    )
    app.state.settings = settings
    app.state.rate_limit = RateLimit(settings.rate_limit_per_s, settings.rate_limit_burst)
    app.state.stopping = threading.Event()  # when set, open streams end
    app.state.telemetry = Telemetry()
    app.add_middleware(BodyLimit, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(TimeRequests, metrics=app.state.telemetry)
    app.state.tracing = tracing.start("api")
    if not isinstance(app.state.tracing, tracing.Nothing):
        app.add_middleware(TraceRequests, tracing=app.state.tracing)
    problems.install(app)
    openapi.install(app)
    for router in (
        runs.router,
        actions.router,
        forks.router,
        care.router,
        records.router,
        report.router,
        sweep_endpoints.router,
        sweep_actions.router,
        recipes.router,
        catalog.router,
        leaderboard.router,
        models.router,
        workers.router,
        storage.router,
        keys.router,
        webhooks.router,
        files.router,
        health.router,
    ):
        app.include_router(router)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.openapi()  # made before the first requests, which check their queries by it: two that made it at the same time would fail
    settings: Settings = app.state.settings
    engine = make_engine(settings.database_url, pool_size=10)
    ledger, publisher = sessions(engine), Publisher(settings.redis_url)
    dispatch = traced_dispatch(publisher, ledger, app.state.tracing)
    signing = Secrets(secret_in(settings.webhook_key_file))
    sender = Sender(signing, settings.webhook_networks)
    courier = Courier(ledger, sender)
    loops = (
        LoopThread("dispatcher", lambda: dispatcher.tick(ledger, dispatch)),
        LoopThread("reaper", lambda: reaper.tick(ledger)),
        LoopThread("budgets", lambda: budgets.tick(ledger), period_s=5.0),
        LoopThread("history", lambda: history.tick(ledger, settings.keep), period_s=30.0),
        LoopThread("sweeps", lambda: sweeps.tick(ledger), period_s=2.0),
        LoopThread("folding", lambda: folding.tick(ledger), period_s=5.0),
        LoopThread("webhooks", courier.tick),
    )
    courier.wake = loops[-1].wake
    app.state.webhook_secrets, app.state.webhook_sender = signing, sender
    app.state.ledger, app.state.publisher, app.state.dispatcher = ledger, publisher, loops[0]
    app.state.telemetry.observe(ledger, publisher)
    app.state.feed = Feed(ledger, app.state.stopping)
    app.state.run_feed = RunFeed(ledger, app.state.stopping)
    polling = [asyncio.create_task(feed.run()) for feed in (app.state.feed, app.state.run_feed)]
    sender.start()
    for loop in loops:
        loop.start()
    try:
        yield
    finally:
        app.state.stopping.set()
        await asyncio.gather(*polling)
        for loop in loops:
            await asyncio.to_thread(loop.stop)
        await asyncio.to_thread(app.state.tracing.close)
        await asyncio.to_thread(sender.stop)
        publisher.close()
        engine.dispose()


async def _log_run(request: Request) -> None:
    """Log lines of a request about a run carry its id. Asynchronous, to bind it in the context of the whole request."""
    if run_id := request.path_params.get("run_id"):
        bind_contextvars(run=run_id)


def _operation_id(route: APIRoute) -> str:
    return route.name
