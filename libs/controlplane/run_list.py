"""Pages of runs: filtered, searched and sorted, by keyset.

A page takes at most seven queries however many runs there are, and none reads a recipe: those are most of what a run's rows hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Double, Row, Text, cast, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane import budgets, cursors, queueing, run_facts, views
from controlplane.db import among
from controlplane.lifecycle import LIVE, RunStatus, StageStatus
from controlplane.list_schemas import CurrentStage, RunFigures, RunPage, RunSummary
from controlplane.models import Run, Stage
from controlplane.roles import DEFAULT_PROJECT
from controlplane.run_facts import Facts
from controlplane.schemas import QueuedView


class Sort(StrEnum):
    """The order of a list of runs. A minus means descending."""

    NEWEST = "-created"
    OLDEST = "created"
    NAME = "name"
    NAME_DESCENDING = "-name"
    STATUS = "status"
    STATUS_DESCENDING = "-status"
    PRIORITY = "priority"
    PRIORITY_DESCENDING = "-priority"
    BPB = "val_bpb"
    BPB_DESCENDING = "-val_bpb"
    CORE = "core"
    CORE_DESCENDING = "-core"
    CHATCORE = "chatcore"
    CHATCORE_DESCENDING = "-chatcore"


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


# What a list shows of a run as it is stored.
_SHOWN = (
    *(Run.id, Run.name, Run.recipe, Run.labels, Run.status, Run.detail, Run.created_at, Run.started_at, Run.finished_at),
    *(Run.archived_at, Run.sweep_id, Run.forked_from, Run.priority),
)
_COLUMNS = (*_SHOWN, Run.max_usd, Run.max_hours, Run.usd_per_hour, Run.held, run_facts.planned())
_BEGUN = (
    select(Stage.run_id, Stage.name, Stage.status, Stage.progress, Stage.latest)
    .ext(distinct_on(Stage.run_id))
    .where(
        among(Stage.run_id, "run_ids"),
        Stage.status.not_in((StageStatus.PENDING, StageStatus.SUCCEEDED, StageStatus.CANCELLED)),
    )
    .order_by(Stage.run_id, Stage.status.in_(LIVE).desc(), Stage.position.desc())
)


def run_page(session: Session, query: RunQuery = RunQuery(), *, limit: int = 20, cursor: str | None = None) -> RunPage:
    """A page of runs. Raises BadCursor."""
    statement = select(*_COLUMNS).where(*_filters(query))
    descending = query.sort.startswith("-")
    key = _key(query.sort)
    statement = statement.add_columns(cast(key, Text).label("key"))
    if cursor is not None:
        value, run_id = cursors.decode(query, cursor)
        place, position = tuple_(key, Run.id), tuple_(cast(value, key.type), run_id)
        statement = statement.where(place < position if descending else place > position)
    order = (key.desc(), Run.id.desc()) if descending else (key, Run.id)
    rows = session.execute(statement.order_by(*order).limit(limit + 1)).all()
    page = rows[:limit]
    next_cursor = None
    if len(rows) > limit:
        next_cursor = cursors.encode(query, [page[-1].key, page[-1].id])
    return RunPage(items=_summaries(session, page), next_cursor=next_cursor)


def summaries(session: Session, run_ids: Sequence[str]) -> list[RunSummary]:
    """These runs as a list shows them, in no order. Deleted and unknown ones are left out."""
    chosen = select(*_COLUMNS).where(Run.id.in_(run_ids), Run.deleted_at.is_(None))
    return _summaries(session, session.execute(chosen).all())


def _summaries(session: Session, rows: Sequence[Row[Any]]) -> list[RunSummary]:
    """In three queries, or six when stages are queued."""
    ids = [row.id for row in rows]
    facts = run_facts.facts(session, ids)
    current = _current(session, ids)
    used = budgets.usages(session, {row.id: row.usd_per_hour for row in rows})
    queued = {run_id for run_id, known in facts.items() if known.queued}
    turns = {turn.run_id: turn for turn in reversed(queueing.entries(session, run_ids=queued))} if queued else {}
    return [_summary(row, facts[row.id], current.get(row.id), used[row.id], turns.get(row.id)) for row in rows]


def _summary(
    row: Row[Any], facts: Facts, current: CurrentStage | None, used: budgets.Usage, turn: QueuedView | None
) -> RunSummary:
    plan = run_facts.plan_of(row.planned)
    return RunSummary(
        **{column.key: value for column, value in zip(_SHOWN, row, strict=False)},
        fraction=run_facts.fraction(facts, plan, row.status),
        eta_s=run_facts.eta_s(facts, plan, row.status),
        stages_done=facts.done,
        stages_total=facts.total,
        current=current,
        reason=facts.reason,
        why=_why(row, facts, current, turn),
        queue_position=turn.position if turn else None,
        figures=RunFigures(tok_per_s=facts.tok_per_s, val_bpb=facts.val_bpb, core=facts.core, chatcore=facts.chatcore),
        budget=views.budget_view(row, used),
    )


def _why(row: Row[Any], facts: Facts, current: CurrentStage | None, turn: QueuedView | None) -> str:
    if row.status in (RunStatus.SUCCEEDED, RunStatus.FAILED):
        return str(row.detail)
    said = facts.message or (facts.reason.message if facts.reason else "")
    if row.status not in (RunStatus.QUEUED, RunStatus.RUNNING):
        return said or str(row.detail)
    if facts.retry_at is not None:
        return f"tried again at {facts.retry_at:%H:%M:%S} UTC after: {said}"
    if turn is not None and (current is None or current.status not in LIVE):
        return turn.why
    return str(row.detail) if row.held else said


def _key(sort: Sort) -> ColumnElement[Any]:
    """What the runs are sorted by. Those without a figure come last in either direction."""
    name = sort.removeprefix("-")
    match name:
        case "created":
            return Run.created_at.expression
        case "name":
            return Run.name.expression
        case "status":
            return cast(Run.status, Text)
        case "priority":
            return Run.priority.expression
    none = "-Infinity" if sort.startswith("-") else "Infinity"
    return func.coalesce(run_facts.figure(name), cast(none, Double))


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


def _current(session: Session, runs: Sequence[str]) -> dict[str, CurrentStage]:
    """The stage that each run is busy with."""
    return {
        row.run_id: CurrentStage(
            name=row.name, status=row.status, progress=views.progress_view(row.progress), latest=row.latest
        )
        for row in session.execute(_BEGUN, {"run_ids": list(runs)})
    }
