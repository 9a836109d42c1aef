"""Garbage collection of checkpoints, and their lineage."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from controlplane import lineage, retention
from controlplane.schemas import LineageView
from services.api.auth import Admin, Caller
from services.api.database import Ledger
from services.api.fields import RunId
from services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["storage"])


class GcRequest(BaseModel):
    """What garbage collection is to do."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(strict=True, description="true: only list what would be marked; false: mark it.")


class GcItem(BaseModel):
    """A checkpoint that nothing needs."""

    id: str = Field(description="Id of the checkpoint. Pinning or promoting it keeps it.")
    run_id: str = Field(description="Id of its run.")
    run_name: str = Field(description="Name of its run.")
    stage: str = Field(description="Its stage.")
    step: int = Field(description="Optimizer steps that the model has been trained for in this stage.")
    path: str = Field(description="Its directory.")
    bytes: int = Field(description="Size of all its files in bytes.")
    delete_after: datetime | None = Field(description="When a worker deletes its files; null if it has not been marked.")


class GcView(BaseModel):
    """The checkpoints that nothing needs."""

    items: list[GcItem] = Field(description="The checkpoints, by run, stage and step.")
    bytes: int = Field(description="Size of all of them in bytes.")


@router.post("/gc", responses=responses("forbidden", "malformed-body", "body-too-large", "invalid-request"))
def collect_garbage(request: Request, caller: Admin, ledger: Ledger, body: GcRequest) -> GcView:
    """Mark the checkpoints that nothing needs. Workers delete their files a day later.

    Kept are checkpoints that are pinned or promoted, published as the model of a stage, or the best of a stage, the newest two
    of an unfinished stage, and all of a running one.
    """
    if body.dry_run:
        request.state.outcome = "dry run"
    with ledger.begin() as session:
        idle = retention.collect(session, dry_run=body.dry_run)
        items = [
            GcItem(
                id=h.checkpoint.id,
                run_id=h.checkpoint.run_id,
                run_name=h.run,
                stage=h.stage,
                step=h.checkpoint.step,
                path=h.checkpoint.path,
                bytes=h.checkpoint.bytes,
                delete_after=h.checkpoint.delete_after,
            )
            for h in idle
        ]
    return GcView(items=items, bytes=sum(item.bytes for item in items))


@router.get("/runs/{run_id}/lineage", responses=responses("run-not-found", "node-not-found", "invalid-request"))
def get_lineage(
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    of: Annotated[
        str | None,
        Query(
            pattern=r"^[A-Za-z0-9_.:/ -]{1,160}$", description="Return only what this node was made from, such as a checkpoint."
        ),
    ] = None,
) -> LineageView:
    """Get what every artifact, checkpoint and score of a run was made from, down to its data and its tokenizer."""
    with ledger() as session:
        return lineage.lineage(session, run_id, of=of)
