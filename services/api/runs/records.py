"""Endpoints of a run's records: metrics, hardware, checkpoints, and events and log lines as pages or live streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from controlplane import feeds, metrics, views
from controlplane import hardware as devices
from controlplane.db import SessionFactory
from controlplane.hardware_schemas import HardwareView
from controlplane.models import Event, LogLine
from controlplane.schemas import CheckpointView, EventGap, EventPage, EventView, LogGap, LogPage, LogView, MetricsView
from services.api import streams
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.feed import BATCH, Gap, Item
from services.api.fields import BIGINT, After, RunId, StageName, Word
from services.api.problems import ProblemError, responses
from services.api.streams import LastEventId, Reading

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["records"])

Page = TypeVar("Page", EventPage, LogPage)


class CheckpointList(BaseModel):
    """The checkpoints of a run."""

    items: list[CheckpointView] = Field(description="Checkpoints that are still on disk, those of the last stage first.")


@router.get("/metrics", responses=responses("run-not-found", "invalid-request"))
def get_metrics(
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    stage: StageName = None,
    keys: Annotated[
        list[Word] | None,
        Query(max_length=50, description="Return only metrics with these keys, such as loss; all if left out."),
    ] = None,
    max_points: Annotated[int, Query(ge=2, le=2000, description="Maximum number of buckets of a series.")] = 500,
    from_step: Annotated[int, Query(ge=0, le=BIGINT, description="First step of each stage to return.")] = 0,
    to_step: Annotated[
        int | None, Query(ge=0, le=BIGINT, description="Last step of each stage to return; if left out, the newest.")
    ] = None,
) -> MetricsView:
    """Get metric series in buckets of neighbouring steps. A bucket has its min, max and last value, so no spike is lost.

    A range of steps is divided into as many buckets as a whole series, so they are finer. Series without a point in it are left out.
    """
    last = BIGINT if to_step is None else to_step
    if from_step > last:
        message = f"must not be greater than to_step, which is {last}"
        raise ProblemError("invalid-request", f"from_step: {message}", [("query from_step", message)])
    with ledger() as session:
        return metrics.metrics(
            session, run_id, stage=stage, keys=keys, max_points=max_points, from_step=from_step, to_step=last
        )


@router.get("/hardware", responses=responses("run-not-found", "invalid-request"))
def get_hardware(
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    stage: StageName = None,
    max_points: Annotated[int, Query(ge=2, le=2000, description="Maximum number of buckets of a device.")] = 500,
) -> HardwareView:
    """Get how busy the GPUs and machines of the run were while its stages ran, in buckets of neighbouring samples."""
    with ledger() as session:
        return devices.hardware(session, run_id, stage=stage, max_points=max_points)


@router.get(
    "/events",
    response_model=EventPage,
    responses={200: streams.declaration(EventPage), **responses("run-not-found", "invalid-request", "bad-event-id")},
)
def get_events(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    after: After = 0,
    kinds: Annotated[
        list[Word], Query(max_length=50, description="Return only events of these kinds, such as checkpoint; all if left out.")
    ] = [],  # noqa: B006
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of events on a page.")] = 200,
    last_event_id: LastEventId = None,
) -> Response | EventPage:
    """List what the stages reported and what the platform did, in order; as a page or as a live stream."""

    def fetch(session: Session, after: int, limit: int) -> EventPage:
        return feeds.events(session, run_id, after=after, kinds=kinds, limit=limit)

    def accepts(item: Item | Gap) -> bool:
        return not kinds or (isinstance(item, EventView) and item.kind in kinds) or isinstance(item, EventGap)

    return _page_or_stream(request, ledger, run_id, fetch, accepts, Event, after, last_event_id, limit)


@router.get(
    "/logs",
    response_model=LogPage,
    responses={200: streams.declaration(LogPage), **responses("run-not-found", "invalid-request", "bad-event-id")},
)
def get_logs(
    request: Request,
    caller: Caller,
    ledger: Ledger,
    run_id: RunId,
    stage: StageName = None,
    attempt: Annotated[int | None, Query(ge=1, le=BIGINT, description="Return only the attempt of this number.")] = None,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=5000, description="Maximum number of lines on a page.")] = 1000,
    tail: Annotated[
        bool, Query(description="Let the page have the last lines instead of the first. A stream ignores it.")
    ] = False,
    last_event_id: LastEventId = None,
) -> Response | LogPage:
    """List the lines that the stages' processes printed, in the order of arrival; as a page or as a live stream."""

    def fetch(session: Session, after: int, limit: int) -> LogPage:
        last = tail and not streams.wants_stream(request)
        return feeds.logs(session, run_id, stage=stage, attempt=attempt, after=after, limit=limit, tail=last)

    def accepts(item: Item | Gap) -> bool:
        return isinstance(item, LogView | LogGap) and stage in (None, item.stage) and attempt in (None, item.attempt)

    return _page_or_stream(request, ledger, run_id, fetch, accepts, LogLine, after, last_event_id, limit)


@router.get("/checkpoints", responses=responses("run-not-found", "invalid-request"))
def list_checkpoints(caller: Caller, ledger: Ledger, run_id: RunId) -> CheckpointList:
    """List the complete checkpoints of the run, those of the last stage first."""
    with ledger() as session:
        return CheckpointList(items=views.checkpoints(session, run_id))


def _page_or_stream(
    request: Request,
    ledger: SessionFactory,
    run_id: str,
    fetch: Callable[[Session, int, int], Page],
    accepts: Callable[[Item | Gap], bool],
    table: type[Event | LogLine],
    after: int,
    last_event_id: str | None,
    limit: int,
) -> Response | Page:
    with ledger() as session:
        if last_event_id is not None or streams.wants_stream(request):
            views.run_status(session, run_id)  # an unknown run is answered with 404 instead of a stream
        after = max(after, streams.resume_point(last_event_id, lambda: feeds.newest_id(session, table, run_id)))
        if not streams.wants_stream(request):
            return fetch(session, after, limit)

    def page(after: int) -> Page:
        with ledger() as session:
            return fetch(session, after, BATCH)

    return streams.answer(request, Reading(table, run_id, page, accepts), after)
