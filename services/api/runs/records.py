"""What a run has said: metrics, events, log lines, checkpoints; as pages, and as live streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from controlplane import feeds, metrics, views
from controlplane.db import SessionFactory
from controlplane.schemas import CheckpointView, EventPage, LogPage, MetricsView
from services.api import streams
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.fields import BIGINT, After, RunId, StageName, Word
from services.api.problems import responses
from services.api.streams import Batch, LastEventId

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["records"])

STREAM_BATCH = 500
Page = TypeVar("Page", EventPage, LogPage)


class CheckpointList(BaseModel):
    items: list[CheckpointView]


@router.get("/metrics", responses=responses("run-not-found", "invalid-request"))
def get_metrics(
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    stage: StageName | None = None,
    keys: Annotated[list[Word] | None, Query(max_length=50, description="only these, as loss; all when left out")] = None,
    max_points: Annotated[int, Query(ge=2, le=2000, description="buckets of a series, at most")] = 500,
) -> MetricsView:
    """Curves, bucketed by step: each bucket has its min, max and last value, so no spike is lost."""
    with ledger() as session:
        return metrics.metrics(session, run_id, stage=stage, keys=keys, max_points=max_points)


@router.get(
    "/events",
    response_model=EventPage,
    responses={200: streams.declaration(EventPage), **responses("run-not-found", "invalid-request")},
)
def get_events(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    after: After = 0,
    kinds: Annotated[list[Word], Query(max_length=50, description="only these, as checkpoint; all when left out")] = [],  # noqa: B006
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    last_event_id: LastEventId = 0,
) -> Response | EventPage:
    """What stages said and what the platform decided, in order."""

    def fetch(session: Session, after: int, limit: int) -> EventPage:
        return feeds.events(session, run_id, after=after, kinds=kinds, limit=limit)

    return _page_or_stream(request, ledger, run_id, fetch, max(after, last_event_id), limit)


@router.get(
    "/logs",
    response_model=LogPage,
    responses={200: streams.declaration(LogPage), **responses("run-not-found", "invalid-request")},
)
def get_logs(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    stage: StageName | None = None,
    attempt: Annotated[int | None, Query(ge=1, le=BIGINT)] = None,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000)] = 1000,
    last_event_id: LastEventId = 0,
) -> Response | LogPage:
    """What the stages' processes printed, in the order it arrived."""

    def fetch(session: Session, after: int, limit: int) -> LogPage:
        return feeds.logs(session, run_id, stage=stage, attempt=attempt, after=after, limit=limit)

    return _page_or_stream(request, ledger, run_id, fetch, max(after, last_event_id), limit)


@router.get("/checkpoints", responses=responses("run-not-found", "invalid-request"))
def list_checkpoints(caller: Caller, ledger: Ledger, run_id: RunId) -> CheckpointList:
    """Every complete checkpoint of the run, newest first."""
    with ledger() as session:
        return CheckpointList(items=views.checkpoints(session, run_id))


def _page_or_stream(
    request: Request,
    ledger: SessionFactory,
    run_id: str,
    fetch: Callable[[Session, int, int], Page],
    after: int,
    limit: int,
) -> Response | Page:
    if not streams.wants_stream(request):
        with ledger() as session:
            return fetch(session, after, limit)
    with ledger() as session:
        views.run_status(session, run_id)  # an unknown run is a 404, not a stream

    def look(after: int) -> Batch:
        # The status is read first: what a finished run said is stored before its status, so the read after it has all.
        with ledger() as session:
            finished = views.run_status(session, run_id).is_finished
            return Batch(fetch(session, after, STREAM_BATCH).items, finished)

    return streams.answer(request, look, after)
