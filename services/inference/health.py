"""Routes for operators: /health, /ready, /metrics, /version, and /stats of nanochat's own web server. They need no key."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from services.inference.state import CurrentState, State

router = APIRouter()


@router.get("/health")
async def health(state: CurrentState, response: Response) -> dict[str, Any]:
    """200 while the engine is alive. 503 if it has died: the service needs a restart."""
    response.status_code = 200 if state.engines.alive else 503
    workers = _workers(state)
    return {
        "status": "ok" if state.engines.alive else "engine stopped",
        "ready": state.registry.ready,
        "num_gpus": len(workers["workers"]),
        "available_workers": workers["available_workers"],
    }


@router.get("/ready")
async def ready(state: CurrentState, response: Response) -> dict[str, Any]:
    """200 if a model is loaded, 503 if none is."""
    response.status_code = 200 if state.registry.ready else 503
    return {"ready": state.registry.ready, "default": state.registry.default}


@router.get("/stats")
async def stats(state: CurrentState) -> dict[str, Any]:
    """The engines as nanochat's web server reports its workers. One is busy if a further request would have to wait."""
    return _workers(state)


@router.get("/version")
async def release() -> dict[str, str]:
    return {"version": version("nanochat-platform")}


@router.get("/metrics")
async def metrics(state: CurrentState) -> Response:
    return Response(generate_latest(state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _workers(state: State) -> dict[str, Any]:
    total = 1
    busy = total if state.engines.waiting else 0
    return {
        "total_workers": total,
        "available_workers": total - busy,
        "busy_workers": busy,
        "workers": [{"gpu_id": i, "device": state.registry.device} for i in range(total)],
    }
