"""The commands that steer a run: pause, resume, cancel, retry."""

from __future__ import annotations

from typing import Annotated

import typer

from client.cli_runs import RunArg, connect
from client.models import Run


def register(app: typer.Typer) -> None:
    for command in (pause, resume, cancel, retry):
        app.command(command.__name__)(command)


def pause(run_id: RunArg) -> None:
    """Pause a run: its running stage saves a checkpoint and frees its worker."""
    with connect() as client:
        _say(client.pause(run_id))


def resume(run_id: RunArg) -> None:
    """Resume a paused run from its last checkpoints."""
    with connect() as client:
        _say(client.resume(run_id))


def cancel(
    run_id: RunArg,
    now: Annotated[bool, typer.Option("--now", help="kill the running stage; it saves nothing")] = False,
) -> None:
    """Cancel a run for good: waiting stages at once, a running stage at its next step."""
    with connect() as client:
        _say(client.cancel(run_id, now=now))


def retry(
    run_id: RunArg,
    stage: Annotated[str | None, typer.Option(help="only this stage; all that failed if left out")] = None,
) -> None:
    """Retry what failed, from the last checkpoints."""
    with connect() as client:
        _say(client.retry(run_id, stage))


def _say(run: Run) -> None:
    typer.echo(f"{run.id} {run.status}")
