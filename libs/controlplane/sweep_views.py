"""Read models of sweeps: pages, the table of one sweep's runs, and their curves."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select, text, tuple_
from sqlalchemy.orm import Session

from controlplane import budgets, cursors, metrics
from controlplane.chunks import SIZES
from controlplane.errors import NotFound
from controlplane.lifecycle import Reason, RunStatus
from controlplane.models import Attempt, Run, Rung, Stage, Sweep
from controlplane.roles import DEFAULT_PROJECT
from controlplane.schemas import PointView
from controlplane.sweep_schemas import (
    SweepCurvesView,
    SweepPage,
    SweepPointView,
    SweepRunView,
    SweepSeriesView,
    SweepStatus,
    SweepSummary,
    SweepView,
)
from nanochat.planning import early
from nanochat.planning.metrics import BY_KEY, METRICS, label

METRIC = "val_bpb"  # of runs without a plan

# Best and newest value of each stage. Points that a resume superseded are left out, to a bucket of points.
_VALUES = text(
    metrics.BEGUN
    + """
SELECT f.stage_id, min(f.min) AS min, max(f.max) AS max, max(ARRAY[f.step, coalesce(f.last, 'NaN')]) AS newest
FROM (
    SELECT b.stage_id, b.valid_to, p.step, p.min, p.max, p.last
    FROM begun b JOIN metric_chunk c ON c.stage_id = b.stage_id AND c.size = :size AND c.key = :key AND c.attempt_no = b.no
    CROSS JOIN LATERAL unnest(c.steps, c.mins, c.maxs, c.lasts) AS p (step, min, max, last)
    UNION ALL
    SELECT b.stage_id, b.valid_to, p.step, finite.value, finite.value, p.value
    FROM begun b JOIN metric_point p ON p.stage_id = b.stage_id AND p.key = :key AND p.attempt_no = b.no
    CROSS JOIN LATERAL (SELECT CASE WHEN p.value NOT IN ('NaN', 'Infinity', '-Infinity') THEN p.value END AS value) AS finite
) AS f WHERE f.valid_to IS NULL OR f.step <= f.valid_to
GROUP BY f.stage_id
"""
)


@dataclass(frozen=True, slots=True)
class SweepQuery:
    """Which sweeps to list."""

    project: str = DEFAULT_PROJECT
    archived: bool = False


class Shown(NamedTuple):
    """What the runs of a sweep are shown by."""

    metric: str
    stage: str
    lower: bool


def page(session: Session, query: SweepQuery = SweepQuery(), *, limit: int = 20, cursor: str | None = None) -> SweepPage:
    """A page of sweeps, newest first. Raises BadCursor."""
    archived = Sweep.archived_at.is_not(None) if query.archived else Sweep.archived_at.is_(None)
    statement = select(Sweep).where(Sweep.project == query.project, Sweep.deleted_at.is_(None), archived)
    if cursor is not None:
        at, sweep_id = cursors.decode(query, cursor)
        statement = statement.where(tuple_(Sweep.created_at, Sweep.id) < tuple_(datetime.fromisoformat(str(at)), sweep_id))
    rows = session.scalars(statement.order_by(Sweep.created_at.desc(), Sweep.id.desc()).limit(limit + 1)).all()
    found = rows[:limit]
    facts = _facts(session, [sweep.id for sweep in found])
    more = cursors.encode(query, [found[-1].created_at.isoformat(), found[-1].id]) if len(rows) > limit else None
    return SweepPage(items=[SweepSummary(**_head(sweep, facts[sweep.id])) for sweep in found], next_cursor=more)


def view(session: Session, sweep_id: str, *, metric: str | None = None, stage: str | None = None) -> SweepView:
    """A sweep with the table of its runs. Raises NotFound, and ValueError if no stage reports the metric."""
    sweep = _sweep(session, sweep_id)
    runs = _runs(session, sweep_id)
    shown = _shown(sweep, runs, metric, stage)
    stages = _stages(session, runs, shown.stage)
    values = _values(session, [run.id for run in runs], shown)
    used = budgets.usages(session, {run.id: run.usd_per_hour for run in runs})
    compared = select(Rung.run_id, func.count()).where(Rung.run_id.in_([run.id for run in runs])).group_by(Rung.run_id)
    rungs: Counter[str] = Counter({row[0]: row[1] for row in session.execute(compared)})
    early_ones = _stopped(session, [sweep_id])
    items = []
    for run in runs:
        rate = metrics.per_step(run.planned, shown.stage, "tokens")
        best, last, step = values.get(stages[run.id].id, (None, None, None)) if run.id in stages else (None, None, None)
        items.append(
            SweepRunView(
                no=run.sweep_no or 0,
                run_id=run.id,
                name=run.name,
                overrides=run.overrides or {},
                status=run.status,
                detail=run.detail,
                held=run.held and not run.status.is_finished,
                stopped_early=run.id in early_ones,
                rungs=rungs[run.id],
                best=best,
                last=last,
                step=step,
                tokens=_tokens(rate, step),
                hours=used[run.id].hours,
                gpu_hours=used[run.id].gpu_hours,
                usd=used[run.id].usd,
            )
        )
    head = _head(sweep, _facts(session, [sweep_id])[sweep_id])
    better = "lower" if shown.lower else "higher"
    return SweepView(**head, spec=sweep.spec, metric=shown.metric, stage=shown.stage, better=better, items=items)


def curves(
    session: Session, sweep_id: str, *, metric: str | None = None, stage: str | None = None, max_points: int = 200
) -> SweepCurvesView:
    """The metric of each run by step, tokens and GPU hours. Raises NotFound, and ValueError if no stage reports the metric."""
    sweep = _sweep(session, sweep_id)
    runs = _runs(session, sweep_id)
    shown = _shown(sweep, runs, metric, stage)
    stages = _stages(session, runs, shown.stage)
    spans = _spans(session, stages)
    series = []
    for run in runs:
        rate = metrics.per_step(run.planned, shown.stage, "tokens")
        found = metrics.metrics(session, run.id, stage=shown.stage, keys=[shown.metric], max_points=max_points).series
        points = [_point(point, rate, spans[run.id]) for one in found for point in one.points]
        if points:
            made = SweepSeriesView(
                no=run.sweep_no or 0, run_id=run.id, name=run.name, overrides=run.overrides or {}, points=points
            )
            series.append(made)
    better = "lower" if shown.lower else "higher"
    return SweepCurvesView(metric=shown.metric, label=label(shown.metric), stage=shown.stage, better=better, series=series)


# -- sweeps --


class _Facts(NamedTuple):
    runs: Counter[RunStatus]
    stopped: int
    pending: int
    finished_at: datetime | None


def _facts(session: Session, sweep_ids: Sequence[str]) -> dict[str, _Facts]:
    query = (
        select(Run.sweep_id, Run.status, func.count(), func.max(Run.finished_at), func.count(Run.wish))
        .where(Run.sweep_id.in_(sweep_ids), Run.deleted_at.is_(None))
        .group_by(Run.sweep_id, Run.status)
    )
    counts: dict[str, Counter[RunStatus]] = {sweep_id: Counter() for sweep_id in sweep_ids}
    ends: dict[str, list[datetime]] = defaultdict(list)
    pending: Counter[str] = Counter()
    for sweep_id, status, n, end, wishes in session.execute(query):
        assert sweep_id is not None
        pending[sweep_id] += 0 if status.is_finished else wishes
        counts[sweep_id][status] += n
        ends[sweep_id] += [end] if end is not None else []
    stopped = Counter(_stopped(session, sweep_ids).values())
    return {
        sweep_id: _Facts(
            runs,
            stopped[sweep_id],
            pending[sweep_id],
            max(ends[sweep_id], default=None) if all(s.is_finished for s in runs) else None,
        )
        for sweep_id, runs in counts.items()
    }


def _stopped(session: Session, sweep_ids: Sequence[str]) -> dict[str, str]:
    """The runs that were stopped early, with their sweeps."""
    query = (
        select(Run.id, Run.sweep_id)
        .join(Stage, Stage.run_id == Run.id)
        .where(Run.sweep_id.in_(sweep_ids), Run.deleted_at.is_(None), Stage.reason == Reason.STOPPED_EARLY)
        .distinct()
    )
    return {run_id: sweep_id for run_id, sweep_id in session.execute(query) if sweep_id is not None}


def _head(sweep: Sweep, facts: _Facts) -> dict[str, Any]:
    left = {status for status in facts.runs if not status.is_finished}
    status = SweepStatus.RUNNING if left - {RunStatus.PAUSED} else SweepStatus.PAUSED if left else SweepStatus.FINISHED
    return {
        "id": sweep.id,
        "name": sweep.name,
        "kind": sweep.kind,
        "recipe": sweep.recipe,
        "status": status,
        "runs": dict(facts.runs),
        "stopped_early": facts.stopped,
        "pending": facts.pending,
        "max_parallel": sweep.max_parallel,
        "created_at": sweep.created_at,
        "finished_at": facts.finished_at,
        "archived_at": sweep.archived_at,
    }


def _sweep(session: Session, sweep_id: str) -> Sweep:
    sweep = session.get(Sweep, sweep_id)
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return sweep


def _shown(sweep: Sweep, runs: Sequence[Run], metric: str | None, stage: str | None) -> Shown:
    """What was asked for, else what the sweep's rule compares, else how the first training stage of its runs is validated."""
    rule = sweep.spec.get("stop_early") or {}
    if metric is None and rule:
        metric, stage = rule["metric"], stage or rule.get("stage")
    trained = [planned["stage"] for run in runs[:1] for planned in (run.planned or {}).get("stages", [])]
    if metric is None and trained:
        metric = next((m.key for m in METRICS if m.plot == "validation" and (stage or trained[0]) in m.stages), None)
    metric = metric or METRIC
    if stage is None and metric in BY_KEY:
        stage = next((name for name in trained if name in BY_KEY[metric].stages), None)
    name, lower = early.where(metric, stage)
    return Shown(metric, name, lower)


# -- runs --


def _runs(session: Session, sweep_id: str) -> list[Run]:
    query = select(Run).where(Run.sweep_id == sweep_id, Run.deleted_at.is_(None)).order_by(Run.sweep_no)
    return list(session.scalars(query))


def _stages(session: Session, runs: Sequence[Run], name: str) -> dict[str, Stage]:
    query = select(Stage).where(Stage.run_id.in_([run.id for run in runs]), Stage.name == name)
    return {stage.run_id: stage for stage in session.scalars(query)}


def _values(session: Session, run_ids: Sequence[str], shown: Shown) -> dict[int, tuple[float | None, float | None, int | None]]:
    """Best value, newest value and its step, by stage."""
    rows = session.execute(_VALUES, {"run_ids": list(run_ids), "stage": shown.stage, "key": shown.metric, "size": SIZES[1]})
    found: dict[int, tuple[float | None, float | None, int | None]] = {}
    for stage_id, low, high, (step, last) in rows:
        found[stage_id] = (low if shown.lower else high, last if math.isfinite(last) else None, int(step))
    return found


def _tokens(rate: float | None, step: int | None) -> int | None:
    return None if rate is None or step is None else round(rate * step)


Span = tuple[float, float, int]  # Unix times of the claim and of the end of an attempt, and its GPUs


def _spans(session: Session, stages: dict[str, Stage]) -> dict[str, list[Span]]:
    owners = {stage.id: run_id for run_id, stage in stages.items()}
    found: dict[str, list[Span]] = defaultdict(list)
    query = select(Attempt).where(Attempt.stage_id.in_(owners)).order_by(Attempt.stage_id, Attempt.no)
    for attempt in session.scalars(query):
        end = attempt.finished_at.timestamp() if attempt.finished_at else math.inf
        found[owners[attempt.stage_id]].append((attempt.claimed_at.timestamp(), end, max(1, attempt.gpus)))
    return found


def _point(point: PointView, rate: float | None, spans: Sequence[Span]) -> SweepPointView:
    used = sum(max(0.0, min(end, point.t) - start) * gpus for start, end, gpus in spans) / 3600
    return SweepPointView(**point.model_dump(), tokens=_tokens(rate, point.step), gpu_hours=used)
