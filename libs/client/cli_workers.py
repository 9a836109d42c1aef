"""The commands for workers: worker list, drain, undrain."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import connect
from client.models import Worker
from client.text import console

out = console()
worker = typer.Typer(help="List workers, and take them out of service for maintenance.", no_args_is_help=True)
WorkerArg = Annotated[str, typer.Argument(metavar="WORKER", help="id of a worker (see `nanochat worker list`)")]


def register(app: typer.Typer) -> None:
    for command in (list_, drain, undrain):
        worker.command(command.__name__.rstrip("_"))(command)
    app.add_typer(worker, name="worker")


def list_() -> None:
    """List all workers and the stages that they run."""
    with connect() as client:
        _show(client.workers())


def drain(
    worker_id: WorkerArg,
    hand_over: Annotated[
        bool, typer.Option("--hand-over", help="stop its running stages with a checkpoint; another worker continues them")
    ] = False,
) -> None:
    """Let a worker take no new stages; its running ones end by themselves. Needs the key of an admin."""
    with connect() as client:
        _show([client.drain(worker_id, hand_over=hand_over)])


def undrain(worker_id: WorkerArg) -> None:
    """Let a worker take stages again. Needs the key of an admin."""
    with connect() as client:
        _show([client.undrain(worker_id)])


def _show(workers: list[Worker]) -> None:
    table = Table("worker", "queue", "status", "GPUs", "runs", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for w in workers:
        gpus = f"{w.gpus} × {w.gpu_name}" if w.gpus else ""
        table.add_row(w.id, w.queue, w.status, gpus, ", ".join(w.attempts))
    out.print(table)
