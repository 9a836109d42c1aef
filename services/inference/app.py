"""The FastAPI application: its routes, its middleware, and the lifetime of the registry and the engine thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from services.inference import chat, completions, errors, health, models, seed, tokens
from services.inference.engine_thread import EngineThread
from services.inference.metrics import Metrics
from services.inference.protocol import Protocol
from services.inference.registry import Registry
from services.inference.settings import Settings
from services.inference.source import Source
from services.inference.state import State


def create_app(settings: Settings, source: Source) -> FastAPI:
    """An application that serves the models of `source`. It loads nothing and starts no thread before its lifespan begins."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics = Metrics()
        engines = EngineThread(max_running=settings.max_running, max_waiting=settings.max_waiting)
        metrics.running.set_function(lambda: engines.running)
        metrics.waiting.set_function(lambda: engines.waiting)
        registry = Registry(source, device=settings.device, max_loaded=settings.max_loaded, engines=engines, metrics=metrics)
        app.state.service = State(registry, engines, metrics, settings.keys(), settings.limits)
        watch = asyncio.create_task(registry.watch(settings.poll_s))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            registry.close()
            await asyncio.to_thread(engines.close)

    app = FastAPI(title="nanochat inference", version="1", lifespan=lifespan, redirect_slashes=False)
    errors.install(app)
    for routes in (chat, completions, models, tokens, seed, health):
        app.include_router(routes.router)
    # The last one that is added sees a request first.
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
