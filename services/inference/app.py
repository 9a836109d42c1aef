"""The FastAPI application: routes, health checks, and the lifetime of the registry and the engine thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.inference import chat, errors
from services.inference.engine_thread import EngineThread
from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.registry import Registry
from services.inference.settings import Settings
from services.inference.source import Entry, Source
from services.inference.state import CurrentState, State, require_key


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

    app = FastAPI(title="nanochat inference", version="1", lifespan=lifespan)
    errors.install(app)
    app.include_router(chat.router)
    _add_models(app)
    _add_health(app)
    return app


def _add_models(app: FastAPI) -> None:
    @app.get("/v1/models", dependencies=[Depends(require_key)])
    async def models(state: CurrentState) -> dict[str, Any]:
        """Promoted checkpoints, newest first. `default` is the newest one that can be loaded."""
        return {"object": "list", "data": [_model(e, state.registry) for e in state.registry.entries()]}

    @app.get("/v1/models/{model_id}", dependencies=[Depends(require_key)])
    async def model(model_id: str, state: CurrentState) -> dict[str, Any]:
        for entry in state.registry.entries():
            if entry.id == model_id:
                return _model(entry, state.registry)
        raise ApiError(404, f"The model {model_id!r} does not exist.", param="model", code="model_not_found")


def _add_health(app: FastAPI) -> None:
    @app.get("/health")
    async def health(state: CurrentState, response: Response) -> dict[str, str]:
        """200 while the engine thread is alive. 503 if it has died: the service needs a restart."""
        response.status_code = 200 if state.engines.alive else 503
        return {"status": "ok" if state.engines.alive else "engine stopped"}

    @app.get("/ready")
    async def ready(state: CurrentState, response: Response) -> dict[str, Any]:
        """200 if a model is loaded, 503 if none is."""
        response.status_code = 200 if state.registry.ready else 503
        return {"ready": state.registry.ready, "default": state.registry.default}

    @app.get("/metrics")
    async def metrics(state: CurrentState) -> Response:
        return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _model(entry: Entry, registry: Registry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "model",
        "created": int(entry.created_at.timestamp()),
        "owned_by": "nanochat",
        "run_id": entry.run_id,
        "run_name": entry.run_name,
        "stage": entry.stage,
        "step": entry.step,
        "loaded": registry.is_loaded(entry.id),
        "default": entry.id == registry.default,
        "max_model_len": registry.context(entry.id),
    }
