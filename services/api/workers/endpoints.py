"""The workers."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from controlplane import queueing, views, workers
from controlplane.lifecycle import Drain
from controlplane.schemas import QueuedView, WorkerView
from services.api.auth import Admin, Caller
from services.api.database import Ledger
from services.api.problems import responses

router = APIRouter(prefix="/v1", tags=["workers"])


WorkerId = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:@-]{1,200}$", description="Id of the worker.")]


class DrainRequest(BaseModel):
    """How a worker is drained."""

    model_config = ConfigDict(extra="forbid")

    running: Drain = Field(
        description="What becomes of its running stages. `FINISH`: they run to their end. `HAND_OVER`: they stop with a "
        "checkpoint, and another worker continues them."
    )


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
        return WorkerList(items=views.workers(session, project=caller.project))


@router.put(
    "/workers/{worker_id}/drain", responses=responses("worker-not-found", "malformed-body", "body-too-large", "invalid-request")
)
def drain_worker(caller: Admin, ledger: Ledger, worker_id: WorkerId, body: DrainRequest) -> WorkerView:
    """Let a worker take no new stages. It is idle when `attempts` is empty. Its next start ends this."""
    return _drain(ledger, worker_id, body.running)


@router.delete("/workers/{worker_id}/drain", responses=responses("worker-not-found", "invalid-request"))
def undrain_worker(caller: Admin, ledger: Ledger, worker_id: WorkerId) -> WorkerView:
    """Let a worker take stages again."""
    return _drain(ledger, worker_id, None)


def _drain(ledger: Ledger, worker_id: str, wish: Drain | None) -> WorkerView:
    with ledger.begin() as session:
        workers.drain(session, worker_id, wish)
        return next(worker for worker in views.workers(session) if worker.id == worker_id)
