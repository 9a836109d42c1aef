"""What a run has used, and the loop that pauses runs whose budget of dollars or hours is spent.

Only stages of the gpu queue cost dollars. Hours are those in which at least one stage was live, so a paused run uses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, or_, select
from sqlalchemy.orm import Session

from controlplane import runs
from controlplane.db import SessionFactory, among
from controlplane.lifecycle import Desired, Reason
from controlplane.loops import leading
from controlplane.models import Attempt, Run, Stage
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import gate
from nanochat.planning import gpus

WARN_AT = 0.8  # of the budget
# Statements of lists of runs are built once: to build one takes about as long as to execute it.
_HELD = (
    select(
        Stage.run_id,
        Attempt.claimed_at,
        func.coalesce(Attempt.finished_at, func.clock_timestamp()).label("until"),
        Stage.queue,
        Attempt.gpus,
        Attempt.gpu_name,
    )
    .join(Stage, Stage.id == Attempt.stage_id)
    .where(among(Stage.run_id, "run_ids"))
)


@dataclass(frozen=True, slots=True)
class Usage:
    """`usd` is None when a GPU stage ran on hardware without a known price."""

    hours: float
    gpu_hours: float
    usd: float | None


def tick(factory: SessionFactory, *, timing: Timing = DEFAULT) -> int:
    """Warn once at 80 % of a budget, and pause at 100 %. Returns how many runs were paused. Call it every few seconds."""
    with factory.begin() as session:
        if not leading(session, "budgets", timing):
            return 0
        limited = or_(Run.max_usd.is_not(None), Run.max_hours.is_not(None))
        due = list(session.scalars(select(Run.id).where(limited, Run.finished_at.is_(None), Run.desired == Desired.RUN)))
    return sum(_enforce(factory, run_id) for run_id in due)


def usage(session: Session, run: Run) -> Usage:
    """What all attempts of the run have used until now."""
    return usages(session, {run.id: run.usd_per_hour})[run.id]


def usages(session: Session, prices: Mapping[str, float | None]) -> dict[str, Usage]:
    """What all attempts of each run have used until now, in one query. `prices` has each run's own price of a GPU, by its id."""
    held: dict[str, list[Row[*tuple[Any, ...]]]] = {run_id: [] for run_id in prices}
    for row in session.execute(_HELD, {"run_ids": list(prices)}):
        held[row.run_id].append(row)
    return {run_id: _usage(price, held[run_id]) for run_id, price in prices.items()}


def _usage(own_price: float | None, attempts: Iterable[Row[*tuple[Any, ...]]]) -> Usage:
    spans, gpu_hours, usd, priced = [], 0.0, 0.0, True
    for row in attempts:
        span = (row.claimed_at, row.until)
        spans.append(span)
        if row.queue != "gpu":
            continue
        used = _hours(*span) * max(1, row.gpus)
        price = price_of(own_price, row.gpu_name)
        gpu_hours += used
        usd += used * (price or 0.0)
        priced = priced and price is not None
    return Usage(_covered(spans), gpu_hours, usd if priced else None)


def price_of(given: float | None, gpu_name: str | None) -> float | None:
    """Dollars per hour of one GPU: the run's own price, else that of the table of GPUs."""
    if given is not None:
        return given
    card = gpus.find(gpu_name)
    return card.usd_per_hour if card else None


def change(
    session: Session, run_id: str, *, priority: int | None = None, max_usd: float | None = None, max_hours: float | None = None
) -> Run:
    """Change a run's place in the queue or its budget; None leaves a value as it is. Raises NotFound, Conflict."""
    with gate(session, run_id) as g:
        runs.unfinished(g.run)
        given = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours}
        changes = {name: value for name, value in given.items() if value is not None}
        for name, value in changes.items():
            setattr(g.run, name, value)
        if "max_usd" in changes or "max_hours" in changes:
            g.run.budget_warned_at = None
        g.note("run_changed", None, changes)
    return g.run


def _enforce(factory: SessionFactory, run_id: str) -> bool:
    with factory.begin() as session:
        with gate(session, run_id) as g:
            run = g.run
            if run.finished_at is not None or run.desired is not Desired.RUN:
                return False
            spent = list(_spent(run, usage(session, run)))
            share = max((share for share, _ in spent), default=0.0)
            words = "; ".join(text for part, text in spent if part >= WARN_AT)
            if share >= WARN_AT and run.budget_warned_at is None:
                run.budget_warned_at = g.now()
                g.note("budget_warning", None, {"share": round(share, 3), "message": f"{words} used"})
            if share < 1:
                return False
            g.note("budget_spent", None, {"message": f"{words} used: the run is paused; raise its budget, then resume it"})
        runs.pause(session, run_id, reason=Reason.BUDGET)
        return True


def _spent(run: Run, used: Usage) -> Iterable[tuple[float, str]]:
    if run.max_usd is not None and used.usd is not None:
        yield used.usd / run.max_usd, f"${used.usd:.2f} of ${run.max_usd:.2f}"
    if run.max_hours is not None:
        yield used.hours / run.max_hours, f"{used.hours:.2f} of {run.max_hours:.2f} hours"


def _covered(spans: Iterable[tuple[datetime, datetime]]) -> float:
    """Hours that at least one of the spans covers."""
    total, until = 0.0, None
    for start, end in sorted(spans):
        start = start if until is None else max(start, until)
        if end > start:
            total += _hours(start, end)
            until = end
    return total


def _hours(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds() / 3600
