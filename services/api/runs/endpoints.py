"""Endpoints of runs: submit, plan, list and get."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from controlplane import actuals, origins, plans, runs, views
from controlplane.lifecycle import RunStatus
from controlplane.list_schemas import RunPage
from controlplane.run_list import RunQuery, Sort, run_page
from controlplane.schemas import ComparisonView, RunView
from nanochat.planning.plan import RunPlan, run_plan
from services.api import streams
from services.api.auth import Caller, Operator
from services.api.database import Ledger
from services.api.fields import Moment, RunId, SearchText, Word
from services.api.problems import responses
from services.api.runs import intake, live, made
from services.api.runs.schemas import PlanRequest, SubmitRequest
from services.api.streams import LastEventId

router = APIRouter(prefix="/v1/runs", tags=["runs"])

REFUSED_BODY = ("malformed-body", "body-too-large", "invalid-request", "invalid-recipe")
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="A key that the client makes up. A repeated request with the same key is answered with the run that the first "
        "one made (draft-ietf-httpapi-idempotency-key-header).",
    ),
]


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": RunView, "description": "The run that an earlier request with this Idempotency-Key made"},
        **responses(*REFUSED_BODY, "forbidden", "idempotency-key-reused", "plan-outdated"),
    },
)
def submit_run(
    request: Request,
    response: Response,
    caller: Operator,
    ledger: Ledger,
    body: SubmitRequest,
    idempotency_key: IdempotencyKey = None,
) -> RunView:
    """Start a run. It is accepted even while the broker is down; the dispatcher finds it in the database.

    If another request with the same Idempotency-Key is in progress, this one waits for that request's run.
    """
    with ledger() as session:
        on = replace(intake.hardware(views.workers(session)), usd_per_hour=body.usd_per_hour)
    recipe, figures = intake.recipe_of(body, on, ledger, project=caller.project, follows=body.plan)
    terms = intake.terms_of(body, on)
    once = runs.Idempotency(caller.id, idempotency_key, intake.fingerprint(body)) if idempotency_key else None
    with ledger.begin() as session:
        with made.once():
            run, created = runs.submit(
                session,
                recipe,
                name=body.name,
                project=caller.project,
                idempotency=once,
                owner=caller.id,
                planned=figures,
                terms=terms,
            )
        if created:
            origins.keep(session, recipe)
        if created and body.plan is not None:
            plans.check(session, body.plan, run_plan(recipe, figures, on.gpu, on.warnings))
        view = views.run_view(session, run.id)
    return made.answer(request, response, view, created=created)


@router.post("/plan", responses=responses(*REFUSED_BODY))
def plan_run(caller: Caller, ledger: Ledger, body: PlanRequest) -> RunPlan:
    """Plan a run: what it would do and cost, on the registered workers or on hardware that the request names.

    It refuses what `POST /v1/runs` would refuse, and starts nothing. `POST /v1/runs` takes the plan's hash for a week.
    """
    with ledger() as session:
        on = intake.requested(body, intake.hardware(views.workers(session)))
    recipe, figures = intake.recipe_of(body, on, ledger, project=caller.project)
    made = run_plan(recipe, figures, on.gpu, on.warnings)
    with ledger.begin() as session:
        plans.keep(session, made)
    return made


@router.get(
    "",
    response_model=RunPage,
    responses={
        200: streams.declaration(RunPage, live.STREAM_OF),
        **responses("invalid-request", "bad-cursor", "bad-event-id"),
    },
)
def list_runs(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of runs on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the previous page.")] = None,
    status: Annotated[list[RunStatus], Query(description="Return only runs with one of these statuses.")] = [],  # noqa: B006
    recipe: Annotated[Word | None, Query(description="Return only runs of the recipe with this name.")] = None,
    search: Annotated[SearchText | None, Query(description="Return only runs with this text in their name or id.")] = None,
    created_after: Annotated[Moment | None, Query(description="Return only runs created then or later.")] = None,
    created_before: Annotated[Moment | None, Query(description="Return only runs created earlier.")] = None,
    sweep: Annotated[Word | None, Query(description="Return only runs of the sweep with this id.")] = None,
    label: Annotated[list[Word], Query(max_length=20, description="Return only runs with all of these labels.")] = [],  # noqa: B006
    archived: Annotated[bool, Query(description="Return the archived runs, instead of all others.")] = False,
    sort: Annotated[Sort, Query(description="Order of the list; a minus means descending.")] = Sort.NEWEST,
    last_event_id: LastEventId = None,
) -> Response | RunPage:
    """List runs in pages, newest first unless `sort` says otherwise; or follow all of them live.

    Runs submitted between two requests do not shift or repeat items.
    """
    if streams.wants_stream(request):
        return live.answer(request, caller.project, last_event_id)
    query = RunQuery(
        tuple(status), recipe, search, created_after, created_before, sort, caller.project, tuple(label), archived, sweep
    )
    with ledger() as session:
        return run_page(session, query, limit=limit, cursor=cursor)


@router.get("/{run_id}", responses=responses("run-not-found", "invalid-request"))
def get_run(caller: Caller, ledger: Ledger, run_id: RunId) -> RunView:
    """Get one run with its stages, their attempts, progress, newest metrics and artifacts."""
    with ledger() as session:
        return views.run_view(session, run_id)


@router.get("/{run_id}/comparison", responses=responses("run-not-found", "invalid-request"))
def compare_run(caller: Caller, ledger: Ledger, run_id: RunId) -> ComparisonView:
    """Compare the run's plan with what happened, stage by stage: hours, dollars and speed."""
    with ledger() as session:
        return actuals.comparison(session, run_id)
