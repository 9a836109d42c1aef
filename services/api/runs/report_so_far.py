"""The report card of a run from the ledger, for a run whose report stage has not made one: at work, failed or cancelled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from controlplane import feeds, metrics, views
from controlplane.lifecycle import RunStatus, StageStatus
from controlplane.schemas import ArtifactView, AttemptView, BudgetView, EventView, RunView, SeriesView, StageView
from nanochat.report import build, gather, record
from nanochat.report.card import Cost, Report, StageCard, State
from nanochat.report.curves import BUCKETS, Curve

EVENTS = 1000  # samples and warnings that are read of a run

STATES: dict[StageStatus, State] = {
    StageStatus.PENDING: "not reached",
    StageStatus.QUEUED: "not reached",
    StageStatus.STARTING: "running",
    StageStatus.RUNNING: "running",
    StageStatus.STOPPING: "running",
    StageStatus.BACKOFF: "running",
    StageStatus.PAUSED: "stopped",
    StageStatus.SUCCEEDED: "done",
    StageStatus.FAILED: "failed",
    StageStatus.CANCELLED: "stopped",
}


def report(session: Session, run_id: str) -> Report | None:
    """The report, or None if no stage has begun. Raises NotFound."""
    run = views.run_view(session, run_id)
    begun = [s for s in run.stages if s.kind != "report" and (s.started_at is not None or s.status is StageStatus.SUCCEEDED)]
    if not begun:
        return None
    series = metrics.metrics(session, run_id, max_points=BUCKETS).series
    told = feeds.events(session, run_id, kinds=["sample", "warning"], limit=EVENTS).items
    cards = [
        _card(stage, [s for s in series if s.stage == stage.name], [e for e in told if e.stage == stage.name])
        for stage in begun
    ]
    made = build.report(run.id, run.config, cards, {}, name=run.name, status=_status(run))
    made.cost = cost(made, run.budget)
    return made


def cost(made: Report, budget: BudgetView) -> Cost | None:
    """What the run cost by the ledger: it does not pay for waiting, nor for stages that a fork took over."""
    found = build.cost({stage.name: stage.results for stage in made.stages}, made.total_seconds, budget.usd_per_hour)
    if found is None or budget.used_usd is None:
        return None
    return found.model_copy(update={"usd": budget.used_usd})


def _status(run: RunView) -> str:
    if run.status is RunStatus.SUCCEEDED:
        return ""
    words = f"The run ended as {run.status.value}" if run.status.is_finished else f"The run is {run.status.value}"
    return f"{words}: {run.detail}" if run.detail else f"{words}."


def _card(stage: StageView, series: Sequence[SeriesView], told: Sequence[EventView]) -> StageCard:
    state = STATES[stage.status]
    results = next((a for a in stage.artifacts if a.name == "results"), None)
    # A stage that a fork took over has its metrics in the ledger of the run that it was made in, and in its own files.
    elsewhere = _recorded(results) if results and not series else record.StageRecord()
    return build.card(
        stage.name,
        state,
        why="" if state == "done" else stage.message,
        started_at=_seconds(stage.started_at),
        finished_at=_seconds(stage.finished_at),
        results=_figures(results) if results else {},
        record=record.StageRecord(
            curves=[_curve(s) for s in series] or elsewhere.curves,
            samples=record.samples([{"step": 0, "prompt": "", "text": "", **e.data} for e in told if e.kind == "sample"])
            or elsewhere.samples,
            warnings=record.warnings([{"code": "", "message": "", **e.data} for e in told if e.kind == "warning"]),
            artifacts=[record.made(a.name, a.path, a.sha256) for a in stage.artifacts],
            attempts=[_attempt(a) for a in stage.attempts],
        ),
    )


def _figures(results: ArtifactView) -> dict[str, Any]:
    """The figures of a stage; empty where its folder cannot be read from here."""
    try:
        found = json.loads((Path(results.path) / gather.RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recorded(results: ArtifactView) -> record.StageRecord:
    try:
        return record.of(Path(results.path).parent)
    except OSError:
        return record.StageRecord()


def _curve(series: SeriesView) -> Curve:
    points = series.points
    bucketed = any(p.min != p.max for p in points)
    return Curve(
        key=series.key,
        steps=[p.step for p in points],
        last=[p.last for p in points],
        low=[p.min for p in points] if bucketed else [],
        high=[p.max for p in points] if bucketed else [],
        nonfinite=[p.step for p in points if p.nonfinite],
    )


def _attempt(attempt: AttemptView) -> record.AttemptRecord:
    return record.AttemptRecord(
        no=attempt.no,
        started_at=_seconds(attempt.started_at),
        ended_at=_seconds(attempt.finished_at),
        resumed_from_step=attempt.resumed_from_step,
        ended="" if attempt.status == "SUCCEEDED" else attempt.message,
    )


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at else None
