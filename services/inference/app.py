"""The application: routes, lifetime of the registry and the engine thread, health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.inference import chat, errors
from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.registry import Registry
from services.inference.scheduler import Scheduler
from services.inference.settings import Settings
from services.inference.source import Entry, Source
from services.inference.state import State, require_key, state

Here = Annotated[State, Depends(state)]


def create_app(settings: Settings, source: Source) -> FastAPI:
    """The service over `source`'s models. Nothing is loaded and no thread runs until the application starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        metrics = Metrics()
        scheduler = Scheduler(max_running=settings.max_running, max_waiting=settings.max_waiting)
        metrics.running.set_function(lambda: scheduler.running)
        metrics.waiting.set_function(lambda: scheduler.waiting)
        registry = Registry(source, device=settings.device, max_loaded=settings.max_loaded, metrics=metrics)
        app.state.here = State(registry, scheduler, metrics, settings.keys())
        watch = asyncio.create_task(registry.watch(settings.poll_s))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            registry.close()
            await asyncio.to_thread(scheduler.close)

    app = FastAPI(title="nanochat inference", version="1", lifespan=lifespan)
    errors.install(app)
    app.include_router(chat.router)
    _add_models(app)
    _add_health(app)
    return app


def _add_models(app: FastAPI) -> None:
    @app.get("/v1/models", dependencies=[Depends(require_key)])
    async def models(here: Here) -> dict[str, Any]:
        """Promoted checkpoints, newest first; the first that loads answers as `default`."""
        return {"object": "list", "data": [_model(e, here.registry) for e in here.registry.entries()]}

    @app.get("/v1/models/{model_id}", dependencies=[Depends(require_key)])
    async def model(model_id: str, here: Here) -> dict[str, Any]:
        for entry in here.registry.entries():
            if entry.id == model_id:
                return _model(entry, here.registry)
        raise ApiError(404, f"The model {model_id!r} does not exist.", param="model", code="model_not_found")


def _add_health(app: FastAPI) -> None:
    @app.get("/health")
    async def health(here: Here, response: Response) -> dict[str, str]:
        """The process lives, and so does its engine thread; 503 when a restart is needed."""
        response.status_code = 200 if here.scheduler.alive else 503
        return {"status": "ok" if here.scheduler.alive else "engine stopped"}

    @app.get("/ready")
    async def ready(here: Here, response: Response) -> dict[str, Any]:
        """503 until a model is loaded."""
        response.status_code = 200 if here.registry.ready else 503
        return {"ready": here.registry.ready, "default": here.registry.default}

    @app.get("/metrics")
    async def metrics(here: Here) -> Response:
        return Response(generate_latest(here.metrics.registry), media_type=CONTENT_TYPE_LATEST)


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
