"""Formats sweeps for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table

from client.sweep_models import Sweep, SweepPlan, SweepSummary
from client.text import duration, number, status_styled


def sweeps_table(sweeps: Iterable[SweepSummary]) -> Table:
    table = _table("id", "name", "kind", "recipe", "status", "runs", "stopped early", "age")
    for one in sweeps:
        runs = ", ".join(f"{n} {status}" for status, n in sorted(one.runs.items()))
        age = duration(one.created_at, None)
        table.add_row(one.id, one.name, one.kind, one.recipe, one.status, runs, str(one.stopped_early or ""), age)
    return table


def runs_table(sweep: Sweep) -> Table:
    """One row for each run: what it changes, reached and used."""
    table = _table("no", "run", "changes", "status", f"best {sweep.metric}", "last", "step", "tokens", "hours", "GPU h", "$")
    for run in sweep.items:
        figures = [run.best, run.last, run.step, run.tokens, run.hours, run.gpu_hours, run.usd]
        status: Any = "stopped early" if run.stopped_early else "held" if run.held else status_styled(run.status)
        shown = ["" if value is None else number(value) for value in figures]
        table.add_row(str(run.no), run.run_id, changes(run.overrides), status, *shown)
    return table


def plan_table(plan: SweepPlan) -> Table:
    table = _table("no", "changes", "parameters", "steps", "tokens", "hours", "$")
    for run in plan.items:
        figures = (run.params, run.steps, run.tokens, run.hours, run.usd)
        warn = " (does not fit)" if run.fits is False else ""
        table.add_row(str(run.no), run.label + warn, *("" if value is None else number(value) for value in figures))
    return table


def plan_lines(plan: SweepPlan) -> Iterator[str]:
    """The lines below the table: the whole sweep, then the warnings."""
    on = f"{plan.gpus} x {plan.gpu}" if plan.gpu else f"{plan.gpus} process(es) on hardware of unknown speed"
    cost = "" if plan.hours is None else f": {number(plan.hours)} h one after another, {number(plan.gpu_hours)} GPU hours"
    yield f"{len(plan.items)} runs on {on}{cost}" + ("" if plan.usd is None else f", ${plan.usd:.2f}")
    for warning in plan.warnings:
        yield f"warning: {warning}"


def changes(overrides: Mapping[str, Any]) -> str:
    """The overrides of a run in short; `base` if there are none. Fields that are only cleared are left out beside others."""
    shown = {path: value for path, value in overrides.items() if value is not None} or overrides
    told = [f"{path.rpartition('.')[2]}={json.dumps(value)}" for path, value in shown.items()]
    return ", ".join(told) or "base"


def _table(*headings: str) -> Table:
    return Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0))
