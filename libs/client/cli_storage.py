"""The commands for what lies on the disk: gc."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from client.cli_runs import connect

GIB = 2**30
out = Console()


def register(app: typer.Typer) -> None:
    app.command()(gc)


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
