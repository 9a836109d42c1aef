"""The commands for what lies on the disk: gc, download, lineage."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import connect
from client.text import console

GIB = 2**30
out = console()


def register(app: typer.Typer) -> None:
    for command in (gc, download, lineage):
        app.command(command.__name__)(command)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list what would be deleted")] = False,
) -> None:
    """Mark the checkpoints that nothing needs. A worker deletes their files a day later; a pin or a promotion keeps them."""
    with connect() as client:
        found = client.collect_garbage(dry_run=dry_run)
    if not found.items:
        typer.echo("Nothing to delete: every checkpoint is needed.")
        return
    table = Table("checkpoint", "run", "stage", "step", "GiB", "deleted after", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for item in found.items:
        when = item.delete_after.astimezone().strftime("%Y-%m-%d %H:%M") if item.delete_after else "not marked"
        table.add_row(item.id, f"{item.run_id} {item.run_name}", item.stage, str(item.step), f"{item.bytes / GIB:.2f}", when)
    out.print(table)
    typer.echo(f"{len(found.items)} checkpoints, {found.bytes / GIB:.2f} GiB" + (". Nothing was changed." if dry_run else ""))


def download(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="id of a checkpoint or of a model")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to put its files")],
) -> None:
    """Download a checkpoint and check its digests. If it is interrupted, run it again: it continues."""
    with connect() as client:
        client.download(checkpoint, folder)
    typer.echo(f"{folder} holds {checkpoint}")


def lineage(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="id of the run")],
    of: Annotated[
        str | None, typer.Option(metavar="NODE", help="only what this was made from: a checkpoint's id, or stage.artifact")
    ] = None,
) -> None:
    """Print what every checkpoint and score of a run was made from, as a Mermaid flowchart."""
    with connect() as client:
        sys.stdout.write(client.lineage(run_id, of).mermaid)
