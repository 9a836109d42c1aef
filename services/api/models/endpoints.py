"""Promoted checkpoints: what the inference service offers, and how a checkpoint becomes one of them."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from controlplane import promotion, views
from controlplane.errors import Conflict
from controlplane.schemas import CheckpointView, ModelView
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.fields import CheckpointId
from services.api.problems import ProblemError, responses

router = APIRouter(prefix="/v1", tags=["models"])


class ModelList(BaseModel):
    items: list[ModelView]


@router.get("/models", responses=responses())
def list_models(caller: Caller, ledger: Ledger) -> ModelList:
    """Promoted checkpoints, newest first."""
    with ledger() as session:
        return ModelList(items=views.models(session))


@router.post(
    "/checkpoints/{checkpoint_id}/promote",
    responses=responses("checkpoint-not-found", "checkpoint-not-promotable", "invalid-request"),
)
def promote_checkpoint(caller: Caller, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Offer a checkpoint to the inference service. Promoting it again changes nothing."""
    with ledger.begin() as session:
        try:
            promotion.promote(session, checkpoint_id)
        except Conflict as err:
            raise ProblemError("checkpoint-not-promotable", str(err)) from err
        return views.checkpoint_view(session, checkpoint_id)
