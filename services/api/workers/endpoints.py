"""The workers."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from controlplane import views
from controlplane.schemas import WorkerView
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.problems import responses

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerList(BaseModel):
    """The workers that have registered."""

    items: list[WorkerView] = Field(description="Workers by queue and id, lost ones included.")


@router.get("", responses=responses())
def list_workers(caller: Caller, ledger: Ledger) -> WorkerList:
    """List every worker that has registered, with the attempts that it runs."""
    with ledger() as session:
        return WorkerList(items=views.workers(session))
