"""Routes for operators: /health, /ready, /metrics, /version, and /stats of nanochat's own web server. They need no key."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.inference.state import CurrentState, State

router = APIRouter()


@router.get("/health", responses={503: {"description": "the engine has died"}})
async def health(state: CurrentState, response: Response) -> dict[str, Any]:
    """200 while the service works or mends itself. 503 if engine processes die one after the other: it needs a restart."""
    response.status_code = 200 if state.engines.alive else 503
    workers = _workers(state)
    return {
        "status": "ok" if state.engines.alive else "engine processes keep dying",
        "ready": state.registry.ready,
        "num_gpus": len(workers["workers"]),
        "available_workers": workers["available_workers"],
    }


@router.get("/ready", responses={503: {"description": "no model answers"}})
async def ready(request: Request, state: CurrentState, response: Response) -> dict[str, Any]:
    """200 if a model answers, 503 while none does: at the start, after a crash, and when the service is shutting down."""
    is_ready = state.registry.ready and not request.app.state.draining
    response.status_code = 200 if is_ready else 503
    return {"ready": is_ready, "default": state.registry.default}


@router.get("/stats")
async def stats(state: CurrentState) -> dict[str, Any]:
    """The engines as nanochat's web server reports its workers. One is busy if a further request would have to wait."""
    return _workers(state)


@router.get("/version")
async def release() -> dict[str, str]:
    return {"version": version("nanochat-platform")}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(state: CurrentState) -> Response:
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _workers(state: State) -> dict[str, Any]:
    replicas = state.engines.replicas
    busy = sum(1 for replica in replicas if replica.waiting or not replica.up)
    return {
        "total_workers": len(replicas),
        "available_workers": len(replicas) - busy,
        "busy_workers": busy,
        "workers": [{"gpu_id": replica.number, "device": replica.device_name} for replica in replicas],
    }
