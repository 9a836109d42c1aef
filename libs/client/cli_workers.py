"""The commands for workers: worker list, drain, undrain."""

from __future__ import annotations

from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Json, connect, emit, show, warn
from client.cli_group import Group
from client.machine_models import Worker
from client.sheet import Column, Sheet
from client.text import duration

worker = typer.Typer(cls=Group, help="List workers, and take them out of service for maintenance.", no_args_is_help=True)
WorkerArg = Annotated[
    str, typer.Argument(metavar="WORKER", help="id of a worker (see `nanochat worker list`)", autocompletion=complete.workers)
]


def register(app: typer.Typer) -> None:
    cli_base.register(worker, "Commands", list_, drain, undrain)
    app.add_typer(worker, name="worker", rich_help_panel=cli_base.FLEET)


def list_(as_json: Json = False) -> None:
    """List all workers and the stages that they run."""
    with connect() as client:
        workers = client.workers()
    if as_json:
        emit(workers)
    elif workers:
        _show(workers)
    else:
        warn("No workers. `nanochat up` starts one for each queue.")


def drain(
    worker_id: WorkerArg,
    hand_over: Annotated[
        bool, typer.Option("--hand-over", help="stop its running stages with a checkpoint; another worker continues them")
    ] = False,
    as_json: Json = False,
) -> None:
    """Let a worker take no new stages; its running ones end by themselves. Needs the key of an admin."""
    with connect() as client:
        _tell(client.drain(worker_id, hand_over=hand_over), as_json)


def undrain(worker_id: WorkerArg, as_json: Json = False) -> None:
    """Let a worker take stages again. Needs the key of an admin."""
    with connect() as client:
        _tell(client.undrain(worker_id), as_json)


def _tell(changed: Worker, as_json: bool) -> None:
    if as_json:
        emit(changed)
    else:
        _show([changed])


def _show(workers: list[Worker]) -> None:
    sheet = Sheet(
        "worker",
        "queue",
        "status",
        Column("GPUs", drop=1, wrap=True),
        Column("runs", wrap=True),
        Column("last sign", right=True, drop=2),
    )
    for w in workers:
        gpus = f"{w.gpus} × {w.gpu_name}" if w.gpus else ""
        sheet.add(w.id, w.queue, w.status, gpus, ", ".join(w.attempts), f"{duration(w.heartbeat_at, None)} ago")
    show(sheet)
