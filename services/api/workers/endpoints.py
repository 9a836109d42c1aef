"""The workers."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from controlplane import queueing, views
from controlplane.schemas import QueuedView, WorkerView
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["workers"])


class WorkerList(BaseModel):
    """The workers that have registered."""

    items: list[WorkerView] = Field(description="Workers by queue and id, lost ones included.")


class QueueList(BaseModel):
    """The stages that wait for a worker."""

    items: list[QueuedView] = Field(description="Stages of each queue, in the order in which workers will claim them.")


@router.get("/queue", responses=responses())
def list_queue(caller: Caller, ledger: Ledger) -> QueueList:
    """List every stage that waits for a worker, with its turn and the reason why it waits."""
    with ledger() as session:
        return QueueList(items=queueing.entries(session, project=caller.project))


@router.get("/workers", responses=responses())
def list_workers(caller: Caller, ledger: Ledger) -> WorkerList:
    """List every worker that has registered, with the attempts that it runs."""
    with ledger() as session:
        return WorkerList(items=views.workers(session))
