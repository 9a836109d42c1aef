"""Promoted checkpoints, which the inference service serves, and promoting one."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from controlplane import promotion, retention, views
from controlplane.errors import Conflict
from controlplane.schemas import CheckpointView, ModelView
from services.api.auth import Caller, Operator
from services.api.database import Ledger
from services.api.fields import CheckpointId
from services.api.problems import ProblemError, responses

router = APIRouter(prefix="/v1", tags=["models"])

REFUSED = ("forbidden", "checkpoint-not-found", "invalid-request")


class ModelList(BaseModel):
    """The models that can be served."""

    items: list[ModelView] = Field(description="Promoted checkpoints that are still on disk, the newest promotion first.")


@router.get("/models", responses=responses())
def list_models(caller: Caller, ledger: Ledger) -> ModelList:
    """List the promoted checkpoints, the newest promotion first."""
    with ledger() as session:
        return ModelList(items=views.models(session, caller.project))


@router.post(
    "/checkpoints/{checkpoint_id}/promote",
    responses=responses("forbidden", "checkpoint-not-found", "checkpoint-not-promotable", "invalid-request"),
)
def promote_checkpoint(caller: Operator, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Promote a checkpoint: offer it to the inference service. Promoting it again has no effect."""
    with ledger.begin() as session:
        try:
            promotion.promote(session, checkpoint_id)
        except Conflict as err:
            raise ProblemError("checkpoint-not-promotable", str(err)) from err
        return views.checkpoint_view(session, checkpoint_id)


@router.post("/checkpoints/{checkpoint_id}/demote", responses=responses(*REFUSED))
def demote_checkpoint(caller: Operator, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Take a promotion back: the inference service no longer offers the checkpoint. Demoting it again has no effect."""
    with ledger.begin() as session:
        promotion.demote(session, checkpoint_id)
        return views.checkpoint_view(session, checkpoint_id)


@router.post("/checkpoints/{checkpoint_id}/pin", responses=responses(*REFUSED, "conflict"))
def pin_checkpoint(caller: Operator, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Pin a checkpoint: garbage collection keeps it. 409 if its files are gone."""
    with ledger.begin() as session:
        retention.pin(session, checkpoint_id)
        return views.checkpoint_view(session, checkpoint_id)


@router.post("/checkpoints/{checkpoint_id}/unpin", responses=responses(*REFUSED, "conflict"))
def unpin_checkpoint(caller: Operator, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Take a pin away. Unpinning again has no effect."""
    with ledger.begin() as session:
        retention.pin(session, checkpoint_id, pinned=False)
        return views.checkpoint_view(session, checkpoint_id)


@router.delete("/checkpoints/{checkpoint_id}", responses=responses(*REFUSED, "conflict"))
def delete_checkpoint(caller: Operator, ledger: Ledger, checkpoint_id: CheckpointId) -> CheckpointView:
    """Delete a checkpoint; a worker deletes its files. 409 with the reason while it is pinned, promoted, published or in use."""
    with ledger.begin() as session:
        retention.discard(session, checkpoint_id)
        return views.checkpoint_view(session, checkpoint_id)
