"""Who does the work."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from controlplane import views
from controlplane.schemas import WorkerView
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.problems import responses

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerList(BaseModel):
    items: list[WorkerView]


@router.get("", responses=responses())
def list_workers(caller: Caller, ledger: Ledger) -> WorkerList:
    """Every worker that has registered, with what it holds."""
    with ledger() as session:
        return WorkerList(items=views.workers(session))
