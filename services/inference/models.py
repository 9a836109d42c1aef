"""GET /v1/models: the models that a request may name."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from services.inference.registry import DEFAULT, Registry, unknown_model
from services.inference.source import Entry
from services.inference.state import CurrentState

router = APIRouter(prefix="/v1")


@router.get("/models")
async def models(state: CurrentState) -> dict[str, Any]:
    """The promoted checkpoints, newest first. The one with `default: true` answers requests that name no model."""
    return {"object": "list", "data": [_model(e, state.registry) for e in state.registry.entries()]}


@router.get("/models/{model_id:path}")
async def model(model_id: str, state: CurrentState) -> dict[str, Any]:
    """One model. `default` is another name of the server's default."""
    wanted = state.registry.default if model_id == DEFAULT else model_id
    for entry in state.registry.entries():
        if entry.id == wanted:
            return _model(entry, state.registry)
    raise unknown_model(model_id)


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
