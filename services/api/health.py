"""Probes, open to all: is the process alive, and can it take a run?"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from controlplane.db import is_current
from services.api.database import Ledger

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="degraded: runs are accepted, but workers are not woken until the broker is back"
    )
    database: Literal["ok", "unreachable", "schema is not current"]
    broker: Literal["ok", "unreachable"]


@router.get("/healthz")
async def healthz() -> Alive:
    """The process answers; says nothing of the database, whose outage a restart would not mend."""
    return Alive()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "the database cannot be used"}})
def readyz(request: Request, response: Response, ledger: Ledger) -> Readiness:
    """Requests can be served: the database answers and its schema is current."""
    broker: Literal["ok", "unreachable"] = "ok" if request.app.state.publisher.ping() else "unreachable"
    database = _database(ledger)
    if database != "ok":
        response.status_code = 503
        return Readiness(status="unavailable", database=database, broker=broker)
    return Readiness(status="ready" if broker == "ok" else "degraded", database=database, broker=broker)


def _database(ledger: Ledger) -> Literal["ok", "unreachable", "schema is not current"]:
    try:
        with ledger() as session:
            return "ok" if is_current(session.connection()) else "schema is not current"
    except SQLAlchemyError:
        return "unreachable"
