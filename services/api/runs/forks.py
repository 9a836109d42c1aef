"""New runs that build on an old one: fork and extend."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field, StringConstraints

from controlplane import forks, runs, views
from controlplane.models import ApiKey
from controlplane.schemas import RunView
from nanochat.planning.graph import STAGES
from services.api.auth import Operator
from services.api.database import Ledger
from services.api.fields import RunId, Storable
from services.api.problems import ProblemError, responses
from services.api.runs import intake, made
from services.api.runs.endpoints import REFUSED_BODY, IdempotencyKey
from services.api.runs.schemas import DottedPath, NewTerms, RecipeRequest, RunName

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])

TRAINS = {stage.name: stage.trains for stage in STAGES if stage.trains is not None}
StageField = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
CheckpointField = Annotated[str, StringConstraints(pattern=r"^c_[0-9a-f]{16}$")]
NAME = "Name of the new run; null means the recipe's name."
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": RunView, "description": "The run that an earlier request with this Idempotency-Key made"},
    **responses(
        *REFUSED_BODY,
        "forbidden",
        "run-not-found",
        "stage-not-found",
        "checkpoint-not-found",
        "conflict",
        "idempotency-key-reused",
    ),
}


class ForkRequest(NewTerms):
    """What the new run changes."""

    from_stage: StageField | None = Field(
        default=None, description="Stage that runs again, with all that read its outputs, even if nothing about it changes."
    )
    from_checkpoint: CheckpointField | None = Field(
        default=None, description="Checkpoint of the old run that its stage resumes from. It is pinned. Excludes `from_stage`."
    )
    overrides: dict[DottedPath, Storable] = Field(
        default={}, max_length=200, description="Values of recipe fields that replace those of the old run, by dotted path."
    )
    name: RunName | None = Field(default=None, description=NAME)


class ExtendRequest(NewTerms):
    """How much longer to train."""

    stage: StageField = Field(description="Training stage to extend.", examples=["base_train"])
    steps: int = Field(strict=True, ge=1, le=100_000_000, description="Optimizer steps that the stage is to have in all.")
    name: RunName | None = Field(default=None, description=NAME)


@router.post("/fork", status_code=201, responses=ANSWERS)
def fork_run(
    request: Request,
    response: Response,
    caller: Operator,
    ledger: Ledger,
    run_id: RunId,
    body: ForkRequest,
    idempotency_key: IdempotencyKey = None,
) -> RunView:
    """Start a run with this run's recipe and overrides. Stages that succeeded and that nothing changes are referenced, not run again.

    It has the owner, the priority and the budget of the old run, unless the request names others.

    409 if the checkpoint does not fit, because a stage before its own would run again.
    """
    if body.from_stage is not None and body.from_checkpoint is not None:
        message = "give the stage or the checkpoint, not both; a checkpoint names its stage"
        raise ProblemError("invalid-request", message, [("from_checkpoint", message)])
    return _fork(
        request, response, caller, ledger, run_id, body, idempotency_key, body.overrides, body.from_stage, body.from_checkpoint
    )


@router.post("/extend", status_code=201, responses=ANSWERS)
def extend_run(
    request: Request,
    response: Response,
    caller: Operator,
    ledger: Ledger,
    run_id: RunId,
    body: ExtendRequest,
    idempotency_key: IdempotencyKey = None,
) -> RunView:
    """Train a stage for more steps: a fork from its furthest checkpoint. The stages after it run again, those before it do not.

    The learning rate follows the schedule of the new length from the checkpoint's step on.
    """
    if body.stage not in TRAINS:
        message = f"is not a training stage; those are {', '.join(TRAINS)}"
        raise ProblemError("invalid-request", f"stage: {message}", [("stage", message)])
    with ledger() as session:
        checkpoint = forks.furthest_checkpoint(session, run_id, body.stage)
    if body.steps <= checkpoint.step:
        message = f"must be more than the {checkpoint.step} steps that the stage's furthest checkpoint has"
        raise ProblemError("invalid-request", f"steps: {message}", [("steps", message)])
    overrides = {f"{TRAINS[body.stage]}.num_iterations": body.steps}
    return _fork(request, response, caller, ledger, run_id, body, idempotency_key, overrides, None, checkpoint.id)


def _fork(
    request: Request,
    response: Response,
    caller: ApiKey,
    ledger: Ledger,
    run_id: str,
    body: ForkRequest | ExtendRequest,
    idempotency_key: str | None,
    overrides: dict[str, Any],
    from_stage: str | None,
    from_checkpoint: str | None,
) -> RunView:
    with ledger() as session:
        on = intake.hardware(views.workers(session))
        parent = forks.source(session, run_id)
        old, inherited = parent.config, forks.terms_of(parent)
    terms = intake.terms_of(body, on, inherited)
    on = replace(on, usd_per_hour=terms.usd_per_hour)
    recipe, figures = intake.recipe_of(RecipeRequest(recipe=old, overrides=overrides), on, ledger, project=caller.project)
    once = None
    if idempotency_key is not None:
        once = runs.Idempotency(caller.id, idempotency_key, intake.fingerprint(body, run_id))
    with ledger.begin() as session:
        with made.once():
            run, created = forks.fork(
                session,
                run_id,
                recipe,
                from_stage=from_stage,
                from_checkpoint=from_checkpoint,
                name=body.name,
                idempotency=once,
                planned=figures,
                terms=terms,
            )
        view = views.run_view(session, run.id)
    return made.answer(request, response, view, created=created)
