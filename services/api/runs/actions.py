"""What a user can ask of a run: pause, resume, cancel, retry. Each answers with the run as it is after the request."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from controlplane import budgets, runs, views
from controlplane.errors import Conflict
from controlplane.schemas import RunView
from services.api.auth import Operator
from services.api.database import Ledger
from services.api.fields import RunId
from services.api.problems import ProblemError, responses
from services.api.runs.schemas import Dollars, Hours, Priority

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])

REFUSED = ("forbidden", "run-not-found", "conflict", "invalid-request")
REFUSED_BODY = ("malformed-body", "body-too-large")


class CancelMode(StrEnum):
    """`graceful`: a running stage saves a checkpoint first. `now`: its processes are killed, and nothing is saved."""

    GRACEFUL = "graceful"
    NOW = "now"


class CancelRequest(BaseModel):
    """How to cancel."""

    model_config = ConfigDict(extra="forbid")

    mode: CancelMode = Field(default=CancelMode.GRACEFUL, description="Whether a running stage may save its work first.")


class SchedulingRequest(BaseModel):
    """Changes of a run's place in the queue and of its budget. What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority | None = Field(default=None, description="Priority of its stages in the queue.")
    max_usd: Dollars | None = Field(default=None, description="Budget in US dollars.")
    max_hours: Hours | None = Field(default=None, description="Budget of hours in which a stage is live.")


class RetryRequest(BaseModel):
    """What to retry."""

    model_config = ConfigDict(extra="forbid")

    stage: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")] | None = Field(
        default=None, description="Name of the stage; null means all that failed.", examples=["base_train"]
    )


@router.patch("/scheduling", responses=responses(*REFUSED, *REFUSED_BODY))
def change_scheduling(caller: Operator, ledger: Ledger, run_id: RunId, body: SchedulingRequest) -> RunView:
    """Change a run's priority or raise its budget. A run that was paused because its budget is spent must also be resumed."""
    with ledger.begin() as session:
        budgets.change(session, run_id, priority=body.priority, max_usd=body.max_usd, max_hours=body.max_hours)
        return views.run_view(session, run_id)


@router.post("/pause", responses=responses(*REFUSED))
def pause_run(caller: Operator, ledger: Ledger, run_id: RunId) -> RunView:
    """Pause a run. A running stage saves a checkpoint and ends, which frees its worker; nothing else starts. 409 if it ended."""
    with ledger.begin() as session:
        runs.pause(session, run_id)
        return views.run_view(session, run_id)


@router.post("/resume", responses=responses(*REFUSED))
def resume_run(request: Request, caller: Operator, ledger: Ledger, run_id: RunId) -> RunView:
    """Resume a paused run: its stages continue from their last checkpoints. 409 if it ended; a failed run is retried instead."""
    with ledger.begin() as session:
        runs.resume(session, run_id)
        view = views.run_view(session, run_id)
    request.app.state.dispatcher.wake()
    return view


@router.post("/cancel", responses=responses("forbidden", "run-not-found", "run-finished", "invalid-request", *REFUSED_BODY))
def cancel_run(caller: Operator, ledger: Ledger, run_id: RunId, body: CancelRequest | None = None) -> RunView:
    """Cancel a run for good. Waiting stages are cancelled at once; running ones save their work first, unless the mode is `now`.

    A run that is being cancelled can be cancelled once more, with the mode `now`.
    """
    with ledger.begin() as session:
        try:
            runs.cancel(session, run_id, now=body is not None and body.mode is CancelMode.NOW)
        except Conflict as err:
            raise ProblemError("run-finished", str(err)) from err
        return views.run_view(session, run_id)


@router.post("/retry", responses=responses(*REFUSED, "stage-not-found", *REFUSED_BODY))
def retry_run(request: Request, caller: Operator, ledger: Ledger, run_id: RunId, body: RetryRequest | None = None) -> RunView:
    """Queue the stages that failed, are paused or wait for a retry, or one of them. They continue from their last checkpoints.

    409 if there is nothing to retry, or if the run was cancelled.
    """
    with ledger.begin() as session:
        runs.retry(session, run_id, body.stage if body else None)
        view = views.run_view(session, run_id)
    request.app.state.dispatcher.wake()
    return view
