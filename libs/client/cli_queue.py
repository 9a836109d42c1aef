"""The commands for the queue, budgets and plans of runs: queue, schedule, compare."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import Json, PriorityOption, RunArg, connect
from client.text import console, number

out = console()


def register(app: typer.Typer) -> None:
    for command in (queue, schedule, compare):
        app.command(command.__name__)(command)


def queue(as_json: Json = False) -> None:
    """List the stages that wait for a worker, in the order of their turns, and why each waits."""
    with connect() as client:
        waiting = client.queue()
    if as_json:
        typer.echo("[" + ", ".join(entry.model_dump_json() for entry in waiting) + "]")
        return
    if not waiting:
        typer.echo("No stage waits for a worker.")
        return
    table = Table("queue", "turn", "run", "stage", "priority", "why", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for entry in waiting:
        table.add_row(entry.queue, str(entry.position), entry.run_id, entry.stage, str(entry.priority), entry.why)
    out.print(table)


def schedule(
    run_id: RunArg,
    priority: PriorityOption = None,
    max_usd: Annotated[float | None, typer.Option(metavar="USD", help="budget in dollars")] = None,
    max_hours: Annotated[float | None, typer.Option(metavar="HOURS", help="budget of hours in which a stage is live")] = None,
) -> None:
    """Change a run's priority or its budget. Resume a run that was paused because its budget was spent."""
    with connect() as client:
        run = client.schedule(run_id, priority=priority, max_usd=max_usd, max_hours=max_hours)
    used = run.budget
    dollars = "unknown" if used.used_usd is None else f"${used.used_usd:.2f}"
    typer.echo(f"{run.id} {run.status}  priority {run.priority}  used {dollars}, {used.used_hours:.2f} h")


def compare(run_id: RunArg, as_json: Json = False) -> None:
    """Compare a run's plan with what happened: hours, dollars and tokens per second of each stage."""
    with connect() as client:
        found = client.comparison(run_id)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    table = Table(
        "stage",
        "hours planned",
        "taken",
        "$ planned",
        "spent",
        "tok/s planned",
        "reached",
        "attempts",
        "planned from",
        box=None,
    )
    for row in found.stages:
        pairs = ((row.planned_hours, row.hours), (row.planned_usd, row.usd), (row.planned_tok_per_s, row.tok_per_s))
        table.add_row(
            row.stage, *(number(value) for pair in pairs for value in pair), str(row.attempts), row.planned_source or ""
        )
    out.print(table)
