"""Endpoints of sweeps: submit, plan, list, and the table and the curves of one sweep."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from controlplane import origins, runs, sweep_views, sweeps, views
from controlplane.sweep_schemas import SweepCurvesView, SweepPage, SweepView
from services.api.auth import Caller, Operator
from services.api.database import Ledger
from services.api.fields import SweepId, Word
from services.api.problems import ProblemError, responses
from services.api.runs import intake as runs_intake
from services.api.runs import made
from services.api.runs.endpoints import REFUSED_BODY, IdempotencyKey
from services.api.sweeps import intake, tables
from services.api.sweeps.schemas import SweepPlanRequest, SweepPlanView, SweepRequest

router = APIRouter(prefix="/v1/sweeps", tags=["sweeps"])

Metric = Annotated[
    Word | None,
    Query(
        description="Metric to show; left out: that of the sweep's rule, else the one by which the first training stage is validated."
    ),
]
StageOf = Annotated[Word | None, Query(description="Stage that reports the metric; the first that does if left out.")]


@contextmanager
def known_metric() -> Iterator[None]:
    """Refuse a metric that no stage reports."""
    try:
        yield
    except ValueError as err:
        raise ProblemError("invalid-request", f"metric: {err}", [("query metric", str(err))]) from err


@router.post(
    "",
    status_code=201,
    responses={
        200: {"model": SweepView, "description": "The sweep that an earlier request with this Idempotency-Key made"},
        **responses(*REFUSED_BODY, "forbidden", "idempotency-key-reused"),
    },
)
def submit_sweep(
    request: Request,
    response: Response,
    caller: Operator,
    ledger: Ledger,
    body: SweepRequest,
    idempotency_key: IdempotencyKey = None,
) -> SweepView:
    """Start a sweep: all its runs are made, or none. Each is a run like any other."""
    with ledger() as session:
        on = runs_intake.hardware(views.workers(session))
    members = intake.members(body, on, ledger, project=caller.project)
    once = None
    if idempotency_key is not None:
        once = runs.Idempotency(caller.id, idempotency_key, runs_intake.fingerprint(body, "sweep"))
    with ledger.begin() as session:
        with made.once():
            sweep, created = sweeps.submit(
                session,
                members,
                name=body.name or f"{members[0].recipe.name} {body.kind}",
                kind=body.kind,
                spec=body.model_dump(mode="json", exclude_none=True),
                project=caller.project,
                owner=caller.id,
                terms=intake.terms_of(body, on),
                labels=body.labels,
                max_parallel=body.max_parallel,
                idempotency=once,
            )
        if created:
            for recipe in {member.recipe.from_: member.recipe for member in members}.values():
                origins.keep(session, recipe)
        view = sweep_views.view(session, sweep.id)
    request.state.made = view.id
    for item in view.items if created else ():
        request.app.state.tracing.submitted(item.run_id)
    request.app.state.dispatcher.wake()
    response.headers["Location"] = f"/v1/sweeps/{view.id}"
    response.status_code = 201 if created else 200
    return view


@router.post("/plan", responses=responses(*REFUSED_BODY))
def plan_sweep(caller: Caller, ledger: Ledger, body: SweepPlanRequest) -> SweepPlanView:
    """Plan a sweep: its runs, their hours and dollars. It refuses what `POST /v1/sweeps` would refuse, and starts nothing."""
    with ledger() as session:
        on = runs_intake.requested(body, runs_intake.hardware(views.workers(session)))
    members = intake.members(body, on, ledger, project=caller.project)
    intake.terms_of(body, on)
    return intake.planned(body, members, on)


@router.get("", responses=responses("invalid-request", "bad-cursor"))
def list_sweeps(
    caller: Caller,
    ledger: Ledger,
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of sweeps on a page.")] = 20,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next_cursor` of the previous page.")] = None,
    archived: Annotated[bool, Query(description="Return the archived sweeps, instead of all others.")] = False,
) -> SweepPage:
    """List sweeps in pages, newest first."""
    with ledger() as session:
        return sweep_views.page(session, sweep_views.SweepQuery(caller.project, archived), limit=limit, cursor=cursor)


@router.get(
    "/{sweep_id}",
    response_model=SweepView,
    responses={200: tables.declaration("The table of its runs"), **responses("sweep-not-found", "invalid-request")},
)
def get_sweep(
    request: Request, caller: Caller, ledger: Ledger, sweep_id: SweepId, metric: Metric = None, stage: StageOf = None
) -> Any:
    """Get one sweep with the table of its runs: overrides, status, best and newest value, tokens, time and cost. As CSV, too."""
    with ledger() as session, known_metric():
        view = sweep_views.view(session, sweep_id, metric=metric, stage=stage)
    return tables.answer(tables.runs_table(view)) if tables.wants_csv(request) else view


@router.get(
    "/{sweep_id}/curves",
    response_model=SweepCurvesView,
    responses={200: tables.declaration("One row for each point"), **responses("sweep-not-found", "invalid-request")},
)
def get_sweep_curves(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    sweep_id: SweepId,
    metric: Metric = None,
    stage: StageOf = None,
    max_points: Annotated[int, Query(ge=2, le=1000, description="Maximum number of buckets of a series.")] = 200,
) -> Any:
    """Get the time to quality: a metric of all runs against tokens and GPU hours, in buckets as in a run's metrics. As CSV, too."""
    with ledger() as session, known_metric():
        found = sweep_views.curves(session, sweep_id, metric=metric, stage=stage, max_points=max_points)
    return tables.answer(tables.points_table(found)) if tables.wants_csv(request) else found
