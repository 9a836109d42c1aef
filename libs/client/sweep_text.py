"""Formats sweeps for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from client.sheet import Cell, Column, Sheet
from client.sweep_models import Sweep, SweepPlan, SweepSummary
from client.text import cost_of, dollars, duration, known, number, status_styled


def sweeps_table(sweeps: Iterable[SweepSummary]) -> Sheet:
    sheet = Sheet(
        "id",
        Column("name", wrap=True),
        Column("kind", drop=3),
        Column("recipe", drop=4),
        "status",
        Column("runs", wrap=True, drop=2),
        Column("stopped early", right=True, drop=5),
        Column("age", right=True, drop=1),
    )
    for one in sweeps:
        runs = ", ".join(f"{n} {status}" for status, n in sorted(one.runs.items()))
        age = duration(one.created_at, None)
        sheet.add(one.id, one.name, one.kind, one.recipe, one.status, runs, str(one.stopped_early or ""), age)
    return sheet


def runs_table(sweep: Sweep) -> Sheet:
    """One row for each run: what it changes, reached and used."""
    figures = (f"best {sweep.metric}", 0), ("last", 3), ("step", 4), ("tokens", 6), ("hours", 5), ("GPU hours", 7), ("$", 2)
    sheet = Sheet(
        Column("no", right=True),
        Column("run", drop=1),
        Column("changes", wrap=True),
        "status",
        *(Column(heading, right=True, drop=drop) for heading, drop in figures),
    )
    for run in sweep.items:
        status: Cell = "stopped early" if run.stopped_early else "held" if run.held else status_styled(run.status)
        shown = [run.best, run.last, run.step, run.tokens, run.hours, run.gpu_hours]
        sheet.add(
            str(run.no),
            run.run_id,
            changes(run.overrides),
            status,
            *map(known, shown),
            dollars(run.usd),
        )
    return sheet


def plan_table(plan: SweepPlan) -> Sheet:
    figures = ("parameters", 3), ("steps", 2), ("tokens", 4), ("hours", 0), ("$", 0)
    sheet = Sheet(
        Column("no", right=True),
        Column("changes", wrap=True),
        *(Column(heading, right=True, drop=drop) for heading, drop in figures),
    )
    for run in plan.items:
        warn = " (does not fit)" if run.fits is False else ""
        shown = (run.params, run.steps, run.tokens, run.hours)
        usd = "" if run.hours is None else dollars(run.usd)
        sheet.add(str(run.no), run.label + warn, *map(known, shown), usd)
    return sheet


def plan_lines(plan: SweepPlan) -> Iterator[str]:
    """The lines below the table: the whole sweep, then the warnings."""
    on = f"{plan.gpus} x {plan.gpu}" if plan.gpu else f"{plan.gpus} process(es) on hardware of unknown speed"
    cost = "" if plan.hours is None else f": {number(plan.hours)} h one after another, {number(plan.gpu_hours)} GPU hours"
    yield f"{len(plan.items)} runs on {on}{cost}" + cost_of(plan.hours, plan.usd)
    for warning in plan.warnings:
        yield f"warning: {warning}"


def changes(overrides: Mapping[str, Any]) -> str:
    """The overrides of a run in short; `base` if there are none. Fields that are only cleared are left out beside others."""
    shown = {path: value for path, value in overrides.items() if value is not None} or overrides
    told = [f"{path.rpartition('.')[2]}={json.dumps(value)}" for path, value in shown.items()]
    return ", ".join(told) or "base"
