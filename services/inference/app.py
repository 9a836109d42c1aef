"""The FastAPI application: its routes, its middleware, and the lifetime of the registry and the engine processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from services.inference import chat, completions, errors, health, models, seed, tokens
from services.inference.callers import Callers
from services.inference.engines.fleet import Fleet, Room
from services.inference.engines.launch import Launch, launch
from services.inference.engines.replica import Patience
from services.inference.engines.wire import Setup
from services.inference.errors import ErrorBody
from services.inference.gate import Bounds, Gate
from services.inference.grammars import GrammarTrial
from services.inference.metrics import Metrics
from services.inference.protocol import Protocol
from services.inference.registry import Registry
from services.inference.settings import Settings
from services.inference.source import Source
from services.inference.state import State


def create_app(settings: Settings, source: Source, launch: Launch = launch) -> FastAPI:
    """An application that serves the models of `source`. It starts engines by `launch`, and not before its lifespan begins."""
    callers = Callers(settings.keys(), settings.api_url)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics = Metrics()
        setup = Setup(
            settings.device, settings.max_running, settings.cache_share, settings.kv_cache, settings.weights, _threads(settings)
        )
        room = Room(settings.max_running, settings.max_waiting, settings.max_waiting_tokens)
        patience = Patience(settings.start_timeout_s, settings.step_timeout_s)
        async with Fleet(launch, setup, room, patience, settings.replicas) as fleet:
            metrics.observe(fleet)
            registry = Registry(
                source, default=settings.default_model, max_loaded=settings.max_loaded, fleet=fleet, metrics=metrics
            )
            grammars = GrammarTrial()
            app.state.service = State(registry, fleet, metrics, settings.limits, grammars)
            watch = asyncio.create_task(registry.watch(settings.poll_s))
            try:
                yield
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                registry.close()
                await grammars.close()

    app = FastAPI(title="nanochat inference", version="1", lifespan=lifespan, redirect_slashes=False)
    errors.install(app)
    for routes in (chat, completions, models, tokens, seed, health):
        app.include_router(routes.router, responses={"default": {"model": ErrorBody, "description": "what is wrong"}})
    # The last one that is added sees a request first.
    app.state.draining = False
    bounds = Bounds(settings.max_body_bytes, settings.max_body_values, settings.body_timeout_s)
    app.add_middleware(Gate, callers=callers, bounds=bounds, draining=lambda: app.state.draining)
    app.add_middleware(Protocol)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["X-Request-Id", "Retry-After"],
        )
    return app


def _threads(settings: Settings) -> int | None:
    """Several replicas on one CPU share its cores."""
    if settings.threads or not settings.replicas or settings.replicas == 1:
        return settings.threads
    return max(1, (os.cpu_count() or 1) // settings.replicas)
