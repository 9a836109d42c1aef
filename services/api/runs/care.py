"""What people keep about a run: its name, notes, labels, whether it is archived; and deleting it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from controlplane import runs, views
from controlplane.schemas import RunView
from services.api.auth import Operator
from services.api.database import Ledger
from services.api.fields import RunId, check_text
from services.api.problems import responses
from services.api.runs.schemas import Label, RunName

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])

Notes = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(check_text)]


class EditRequest(BaseModel):
    """What to change. A field that is left out or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: RunName | None = Field(default=None, description="Name of the run, for people.")
    notes: Notes | None = Field(default=None, description="Free text.")
    notes_before: Notes | None = Field(
        default=None,
        description="The notes as you have read them: 409 if they are others by now, so that nobody's words are lost.",
    )
    labels: list[Label] | None = Field(default=None, max_length=50, description="All labels that the run is to have.")
    archived: bool | None = Field(default=None, strict=True, description="Whether lists leave it out. It must be finished.")


@router.patch(
    "",
    responses=responses("forbidden", "run-not-found", "conflict", "malformed-body", "body-too-large", "invalid-request"),
)
def edit_run(caller: Operator, ledger: Ledger, run_id: RunId, body: EditRequest) -> RunView:
    """Change the name, notes or labels of a run, or archive it. 409 for archiving a run that is not finished, and if `notes_before` is out of date."""
    with ledger.begin() as session:
        runs.describe(session, run_id, **body.model_dump())
        return views.run_view(session, run_id)


@router.delete("", responses=responses("forbidden", "run-not-found", "conflict", "invalid-request"))
def delete_run(caller: Operator, ledger: Ledger, run_id: RunId) -> RunView:
    """Delete a finished run for good; workers delete its checkpoints. The answer is the last that is seen of it.

    409 while it is not finished, one of its checkpoints is promoted or pinned, or a fork of it exists.
    """
    with ledger.begin() as session:
        runs.delete(session, run_id)
        return views.run_view(session, run_id)
