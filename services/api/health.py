"""Liveness and readiness probes and Prometheus metrics, which need no API key."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from sqlalchemy.exc import SQLAlchemyError

from controlplane.db import is_current
from services.api.database import Ledger

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process is alive."""

    status: Literal["ok"] = Field(default="ok", description="Always ok.")


class Readiness(BaseModel):
    """Whether requests can be served."""

    status: Literal["ready", "degraded", "unavailable"] = Field(
        description="`degraded`: runs are accepted, but workers are not woken until the broker is back. "
        "`unavailable`: the database cannot be used."
    )
    database: Literal["ok", "unreachable", "schema is not current"] = Field(description="State of the database.")
    broker: Literal["ok", "unreachable"] = Field(description="State of the broker, which carries wake-up calls to workers.")


@router.get("/health")
async def health() -> Alive:
    """Whether the process is alive. The database is not checked, because a restart would not repair it."""
    return Alive()


@router.get("/ready", responses={503: {"model": Readiness, "description": "The database cannot be used"}})
def ready(request: Request, response: Response, ledger: Ledger) -> Readiness:
    """Whether requests can be served: the database answers and its schema is current."""
    broker: Literal["ok", "unreachable"] = "ok" if request.app.state.publisher.ping() else "unreachable"
    database = _database(ledger)
    if database != "ok":
        response.status_code = 503
        return Readiness(status="unavailable", database=database, broker=broker)
    return Readiness(status="ready" if broker == "ok" else "degraded", database=database, broker=broker)


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(request: Request) -> Response:
    """Metrics of this process, of the queues and of the workers, for Prometheus."""
    return Response(generate_latest(request.app.state.telemetry.registry), media_type=CONTENT_TYPE_LATEST)


def _database(ledger: Ledger) -> Literal["ok", "unreachable", "schema is not current"]:
    try:
        with ledger() as session:
            return "ok" if is_current(session.connection()) else "schema is not current"
    except SQLAlchemyError:
        return "unreachable"
