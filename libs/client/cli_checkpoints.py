"""The commands for checkpoints: checkpoints list, pin, unpin, promote, demote, delete."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import RunArg, connect
from client.text import console

out = console()
CheckpointArg = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="id of a checkpoint, c_… (see `nanochat checkpoints list`)")
]
checkpoints = typer.Typer(help="List, pin, promote and delete checkpoints.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (list_, pin, unpin, promote, demote, delete):
        checkpoints.command(command.__name__.rstrip("_"))(command)
    app.add_typer(checkpoints, name="checkpoints")


def list_(run_id: RunArg) -> None:
    """List the checkpoints of a run that are on disk, those of the last stage first."""
    table = Table("id", "stage", "step", "val bpb", "GB", "promoted", "pinned", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with connect() as client:
        for c in client.checkpoints(run_id):
            bpb = "" if c.val_bpb is None else f"{c.val_bpb:.4f}"
            marks = ("yes" if c.promoted_at else "", "yes" if c.pinned_at else "")
            table.add_row(c.id, c.stage, str(c.step), bpb, f"{c.bytes / 1e9:.2f}", *marks)
    out.print(table)


def pin(checkpoint_id: CheckpointArg) -> None:
    """Keep a checkpoint until it is unpinned."""
    with connect() as client:
        client.pin(checkpoint_id)
    typer.echo(f"{checkpoint_id} pinned")


def unpin(checkpoint_id: CheckpointArg) -> None:
    """Let garbage collection delete a checkpoint again."""
    with connect() as client:
        client.pin(checkpoint_id, pinned=False)
    typer.echo(f"{checkpoint_id} unpinned")


def promote(checkpoint_id: CheckpointArg) -> None:
    """Offer a checkpoint to the inference service."""
    with connect() as client:
        client.promote(checkpoint_id)
    typer.echo(f"{checkpoint_id} promoted")


def demote(checkpoint_id: CheckpointArg) -> None:
    """Take a promotion back."""
    with connect() as client:
        client.demote(checkpoint_id)
    typer.echo(f"{checkpoint_id} demoted")


def delete(checkpoint_id: CheckpointArg) -> None:
    """Delete a checkpoint that nothing needs for good."""
    with connect() as client:
        client.delete_checkpoint(checkpoint_id)
    typer.echo(f"{checkpoint_id} deleted")
