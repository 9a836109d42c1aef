"""Pages of runs: filtered, searched and sorted, by keyset.

A page takes three queries however many runs there are, and none reads a recipe: those are most of what a run's rows hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane import cursors
from controlplane.lifecycle import RunStatus, StageStatus
from controlplane.models import Run, Stage
from controlplane.roles import DEFAULT_PROJECT
from controlplane.schemas import CurrentStage, RunPage, RunSummary
from controlplane.views import progress_view


class Sort(StrEnum):
    """The order of a list of runs. A minus means descending."""

    NEWEST = "-created"
    OLDEST = "created"
    NAME = "name"
    NAME_DESCENDING = "-name"


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs to list, and in which order. An empty filter lets every run pass."""

    status: tuple[RunStatus, ...] = ()
    recipe: str | None = None
    search: str | None = None  # a part of the name or of the id, in any case
    created_after: datetime | None = None
    created_before: datetime | None = None
    sort: Sort = Sort.NEWEST
    project: str = DEFAULT_PROJECT
    labels: tuple[str, ...] = ()  # all of them
    archived: bool = False  # only archived runs, instead of only others
    sweep: str | None = None  # id


# What a list shows of a run.
_COLUMNS = (Run.id, Run.name, Run.recipe, Run.labels, Run.status, Run.detail, Run.created_at, Run.started_at, Run.finished_at)
_NOT_BEGUN = (StageStatus.PENDING, StageStatus.SUCCEEDED, StageStatus.CANCELLED)


def run_page(session: Session, query: RunQuery = RunQuery(), *, limit: int = 20, cursor: str | None = None) -> RunPage:
    """A page of runs. Raises BadCursor."""
    statement = select(*_COLUMNS).where(*_filters(query))
    by_name = query.sort in (Sort.NAME, Sort.NAME_DESCENDING)
    key: Any = Run.name if by_name else Run.created_at
    descending = query.sort.startswith("-")
    if cursor is not None:
        value, run_id = cursors.decode(query, cursor)
        place = tuple_(key, Run.id)
        position = tuple_(value if by_name else datetime.fromisoformat(str(value)), run_id)
        statement = statement.where(place < position if descending else place > position)
    order = (key.desc(), Run.id.desc()) if descending else (key, Run.id)
    rows = session.execute(statement.order_by(*order).limit(limit + 1)).all()
    page = rows[:limit]
    counts, current = _stages(session, [row.id for row in page])
    next_cursor = None
    if len(rows) > limit:
        last = page[-1]
        next_cursor = cursors.encode(query, [last.name if by_name else last.created_at.isoformat(), last.id])
    items = [
        RunSummary(**row._mapping, stages_done=counts[row.id][0], stages_total=counts[row.id][1], current=current.get(row.id))
        for row in page
    ]
    return RunPage(items=items, next_cursor=next_cursor)


def _filters(query: RunQuery) -> Iterator[ColumnElement[bool]]:
    yield Run.project == query.project
    yield Run.deleted_at.is_(None)
    yield Run.archived_at.is_not(None) if query.archived else Run.archived_at.is_(None)
    if query.labels:
        yield Run.labels.contains(list(query.labels))
    if query.status:
        yield Run.status.in_(query.status)
    if query.sweep is not None:
        yield Run.sweep_id == query.sweep
    if query.recipe is not None:
        yield Run.recipe == query.recipe
    if query.search is not None:
        yield Run.name.icontains(query.search, autoescape=True) | Run.id.icontains(query.search, autoescape=True)
    if query.created_after is not None:
        yield Run.created_at >= query.created_after
    if query.created_before is not None:
        yield Run.created_at < query.created_before


def _stages(session: Session, runs: Sequence[str]) -> tuple[dict[str, tuple[int, int]], dict[str, CurrentStage]]:
    """For each run: how many of its stages have succeeded and how many there are, and the one that it is busy with."""
    done = func.count().filter(Stage.status == StageStatus.SUCCEEDED)
    counted = select(Stage.run_id, done, func.count()).where(Stage.run_id.in_(runs)).group_by(Stage.run_id)
    counts = {run_id: (done, total) for run_id, done, total in session.execute(counted)}
    begun = (
        select(Stage.run_id, Stage.name, Stage.status, Stage.progress, Stage.latest)
        .ext(distinct_on(Stage.run_id))
        .where(Stage.run_id.in_(runs), Stage.status.not_in(_NOT_BEGUN))
        .order_by(Stage.run_id, Stage.position.desc())
    )
    current = {
        row.run_id: CurrentStage(name=row.name, status=row.status, progress=progress_view(row.progress), latest=row.latest)
        for row in session.execute(begun)
    }
    return {run_id: counts.get(run_id, (0, 0)) for run_id in runs}, current
