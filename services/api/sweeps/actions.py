"""What a user can ask of a sweep: pause, resume and cancel its runs, change it, delete it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from controlplane import sweep_views, sweeps
from controlplane.lifecycle import Wish
from controlplane.sweep_schemas import SweepView
from services.api.auth import Operator
from services.api.database import Ledger
from services.api.fields import SweepId
from services.api.problems import responses
from services.api.runs.actions import REFUSED_BODY, CancelMode, CancelRequest
from services.api.sweeps.schemas import Parallel, SweepName

router = APIRouter(prefix="/v1/sweeps/{sweep_id}", tags=["sweeps"])

REACTION_S = 5.0  # what takes longer than this is done after the answer
REFUSED = ("forbidden", "sweep-not-found", "conflict", "invalid-request")


class SweepEditRequest(BaseModel):
    """What to change. A field that is left out or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: SweepName | None = Field(default=None, description="Name of the sweep. Its runs keep theirs.")
    max_parallel: Parallel | None = Field(default=None, description="How many of its runs may go on at once.")
    archived: bool | None = Field(
        default=None, strict=True, description="Whether lists leave it and its runs out. All runs must be finished."
    )


@router.post("/pause", responses=responses(*REFUSED))
def pause_sweep(caller: Operator, ledger: Ledger, sweep_id: SweepId) -> SweepView:
    """Pause every run of the sweep. Running stages save a checkpoint and end. 409 if all runs have ended."""
    return _ask(ledger, sweep_id, Wish.PAUSE)


@router.post("/resume", responses=responses(*REFUSED))
def resume_sweep(request: Request, caller: Operator, ledger: Ledger, sweep_id: SweepId) -> SweepView:
    """Resume every paused run of the sweep. 409 if all runs have ended."""
    view = _ask(ledger, sweep_id, Wish.RESUME)
    request.app.state.dispatcher.wake()
    return view


@router.post("/cancel", responses=responses(*REFUSED, *REFUSED_BODY))
def cancel_sweep(caller: Operator, ledger: Ledger, sweep_id: SweepId, body: CancelRequest | None = None) -> SweepView:
    """Cancel every unfinished run of the sweep for good. 409 if all runs have ended."""
    return _ask(ledger, sweep_id, Wish.ABORT if body is not None and body.mode is CancelMode.NOW else Wish.CANCEL)


@router.patch("", responses=responses(*REFUSED, *REFUSED_BODY))
def edit_sweep(caller: Operator, ledger: Ledger, sweep_id: SweepId, body: SweepEditRequest) -> SweepView:
    """Change the name of a sweep or how many runs go on at once, or archive it with its runs. 409 for archiving a live one."""
    with ledger.begin() as session:
        sweeps.change(session, sweep_id, **body.model_dump())
        return sweep_views.view(session, sweep_id)


@router.delete("", responses=responses(*REFUSED))
def delete_sweep(caller: Operator, ledger: Ledger, sweep_id: SweepId) -> SweepView:
    """Delete a sweep with all its runs for good. The answer is the last that is seen of it.

    409, and nothing is deleted, while one of its runs cannot be: it is not finished, its checkpoint is promoted or pinned, or a fork
    of it exists.
    """
    with ledger.begin() as session:
        view = sweep_views.view(session, sweep_id)
        sweeps.delete(session, sweep_id)
        return view


def _ask(ledger: Ledger, sweep_id: str, wish: Wish) -> SweepView:
    with ledger.begin() as session:
        sweeps.ask(session, sweep_id, wish)
    sweeps.carry_out(ledger, sweep_id, within_s=REACTION_S)
    with ledger() as session:
        return sweep_views.view(session, sweep_id)
