"""The commands that steer a run: pause, resume, cancel, retry, fork, extend, edit, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from client.cli_local import SetOption, overrides_of
from client.cli_runs import MaxHours, MaxUsd, PriorityOption, RunArg, UsdPerHour, connect
from client.models import Run

NewName = Annotated[str | None, typer.Option(help="name of the new run")]


def register(app: typer.Typer) -> None:
    for command in (pause, resume, cancel, retry, fork, extend, edit, delete):
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


def fork(
    run_id: RunArg,
    set_: SetOption = None,
    stage: Annotated[str | None, typer.Option("--from", help="stage that runs again, with all that follow from it")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="checkpoint to start its stage from, c_… (see `nanochat checkpoints list`)")
    ] = None,
    name: NewName = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
) -> None:
    """Start a run with the recipe of another one, changed by --set. What succeeded and does not change is not run again.

    Priority and budget are those of the old run, unless you give others.
    """
    terms = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours, "usd_per_hour": usd_per_hour}
    with connect() as client:
        changes = overrides_of(set_, None)
        run = client.fork(run_id, changes, from_stage=stage, from_checkpoint=checkpoint, name=name, **terms)
    typer.echo(run.id)


def extend(
    run_id: RunArg,
    stage: Annotated[str, typer.Argument(help="training stage, such as base_train")],
    steps: Annotated[int, typer.Argument(min=1, help="steps that it is to have in all")],
    name: NewName = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
) -> None:
    """Start a run that trains a stage of another one for more steps, and all that follows from it.

    Priority and budget are those of the old run, unless you give others.
    """
    terms = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours, "usd_per_hour": usd_per_hour}
    with connect() as client:
        typer.echo(client.extend(run_id, stage, steps, name, **terms).id)


def edit(
    run_id: RunArg,
    name: Annotated[str | None, typer.Option(help="new name")] = None,
    notes: Annotated[str | None, typer.Option(help="new notes")] = None,
    label: Annotated[list[str] | None, typer.Option(help="all labels that the run is to have; repeat it for several")] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--unarchive", help="leave a finished run out of lists, or not")
    ] = None,
) -> None:
    """Change the name, notes or labels of a run, or archive it."""
    with connect() as client:
        _say(client.edit(run_id, name=name, notes=notes, labels=label, archived=archive))


def delete(run_id: RunArg) -> None:
    """Delete a finished run and its checkpoints for good."""
    with connect() as client:
        client.delete(run_id)
    typer.echo(f"{run_id} deleted")


def _say(run: Run) -> None:
    typer.echo(f"{run.id} {run.status}")
