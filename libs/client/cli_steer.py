"""The commands that steer a run: pause, resume, cancel, retry, fork, extend, edit, delete."""

from __future__ import annotations

from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Json, RunArg, Yes, confirm, connect, say, tell
from client.cli_checkpoints import found
from client.cli_options import MaxHours, MaxUsd, PriorityOption, SetOption, UsdPerHour, overrides_of, something_to_change
from client.models import Run
from client.printable import clean

NewName = Annotated[str | None, typer.Option(help="name of the new run")]


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.STEER, pause, resume, cancel, retry, fork, extend, edit, delete)


def pause(run_id: RunArg, as_json: Json = False) -> None:
    """Pause a run: its running stage saves a checkpoint and frees its worker."""
    with connect() as client:
        _tell(client.pause(run_id), as_json)


def resume(run_id: RunArg, as_json: Json = False) -> None:
    """Resume a paused run from its last checkpoints."""
    with connect() as client:
        _tell(client.resume(run_id), as_json)


def cancel(
    run_id: RunArg,
    now: Annotated[bool, typer.Option("--now", help="kill the running stage; it saves nothing")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel a run for good: waiting stages at once, a running stage at its next step."""
    with connect() as client:
        run = client.run(run_id)
        if not run.is_finished:
            confirm(clean(f"Cancel {run.id} {run.name}, which is {run.status}? It cannot be resumed."), yes)
        _tell(client.cancel(run.id, now=now), as_json)


def retry(
    run_id: RunArg,
    stage: Annotated[
        str | None, typer.Option(help="only this stage; all that failed if left out", autocompletion=complete.stages)
    ] = None,
    as_json: Json = False,
) -> None:
    """Retry what failed, from the last checkpoints."""
    with connect() as client:
        _tell(client.retry(run_id, stage), as_json)


def fork(
    run_id: RunArg,
    set_: SetOption = None,
    stage: Annotated[
        str | None,
        typer.Option("--from", help="stage that runs again, with all that follow from it", autocompletion=complete.stages),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help="checkpoint to start its stage from: its id, or RUN or RUN:STAGE for the newest one there",
            autocompletion=complete.checkpoints,
        ),
    ] = None,
    name: NewName = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Start a run with the recipe of another one, changed by --set. What succeeded and does not change is not run again.

    Priority and budget are those of the old run, unless you give others.
    """
    terms = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours, "usd_per_hour": usd_per_hour}
    changes = overrides_of(set_, None)
    with connect() as client:
        start = None if checkpoint is None else found(client, checkpoint)
        run = client.fork(run_id, changes, from_stage=stage, from_checkpoint=start, name=name, **terms)
    tell(run, run.id, as_json)


def extend(
    run_id: RunArg,
    stage: Annotated[str, typer.Argument(help="training stage, such as base_train", autocompletion=complete.stages)],
    steps: Annotated[int, typer.Argument(min=1, help="steps that it is to have in all")],
    name: NewName = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Start a run that trains a stage of another one for more steps, and all that follows from it.

    Priority and budget are those of the old run, unless you give others.
    """
    terms = {"priority": priority, "max_usd": max_usd, "max_hours": max_hours, "usd_per_hour": usd_per_hour}
    with connect() as client:
        run = client.extend(run_id, stage, steps, name, **terms)
    tell(run, run.id, as_json)


def edit(
    run_id: RunArg,
    name: Annotated[str | None, typer.Option(help="new name")] = None,
    notes: Annotated[str | None, typer.Option(help="new notes")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="all labels that the run is to have; repeat it for several; '' for none")
    ] = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--unarchive", help="leave a finished run out of lists, or not")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the name, notes or labels of a run, or archive it."""
    labels = None if label is None else list(filter(None, label))
    something_to_change(name=name, notes=notes, label=label, archive=archive)
    with connect() as client:
        _tell(client.edit(run_id, name=name, notes=notes, labels=labels, archived=archive), as_json)


def delete(run_id: RunArg, yes: Yes = False) -> None:
    """Delete a finished run and its checkpoints for good."""
    with connect() as client:
        run = client.run(run_id)
        confirm(clean(f"Delete {run.id} {run.name} with all its checkpoints for good?"), yes)
        client.delete(run.id)
    say(f"{run.id} deleted")


def _tell(run: Run, as_json: bool) -> None:
    tell(run, f"{run.id} {run.status}", as_json)
