"""The commands for the queue and the budgets of runs: queue, schedule."""

from __future__ import annotations

import typer

from client import cli_base
from client.cli_base import Json, RunArg, connect, emit, show, tell, warn
from client.cli_options import MaxHours, MaxUsd, PriorityOption
from client.sheet import Column, Sheet


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.STEER, queue, schedule)


def queue(as_json: Json = False) -> None:
    """List the stages that wait for a worker, in the order of their turns, and why each waits."""
    with connect() as client:
        waiting = client.queue()
    if as_json:
        emit(waiting)
        return
    if not waiting:
        warn("No stage waits for a worker.")
        return
    sheet = Sheet(
        Column("queue", drop=2),
        Column("turn", right=True),
        "run",
        Column("name", wrap=True, drop=3),
        "stage",
        Column("priority", right=True, drop=1),
        Column("why", wrap=True),
    )
    for entry in waiting:
        sheet.add(entry.queue, str(entry.position), entry.run_id, entry.run_name, entry.stage, str(entry.priority), entry.why)
    show(sheet)


def schedule(
    run_id: RunArg,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    as_json: Json = False,
) -> None:
    """Change a run's priority or its budget. Resume a run that was paused because its budget was spent."""
    with connect() as client:
        run = client.schedule(run_id, priority=priority, max_usd=max_usd, max_hours=max_hours)
    used = run.budget
    dollars = "unknown" if used.used_usd is None else f"${used.used_usd:.2f}"
    tell(run, f"{run.id} {run.status}  priority {run.priority}  used {dollars}, {used.used_hours:.2f} h", as_json)
