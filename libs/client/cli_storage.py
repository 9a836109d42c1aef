"""The commands for what lies on the disk: gc, download, lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import cli_base, complete
from client.checkpoint_models import Garbage
from client.cli_base import Json, RunArg, Yes, confirm, connect, emit, say, show
from client.cli_checkpoints import found
from client.sheet import Column, Sheet
from client.text import when

GIB = 2**30


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.MODELS, gc, download, lineage)


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only list what would be deleted")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Mark the checkpoints that nothing needs. A worker deletes their files a day later; a pin or a promotion keeps them."""
    with connect() as client:
        garbage = client.collect_garbage(dry_run=True)
        if garbage.items and not dry_run:
            confirm(f"Mark {_sum(garbage)}, for deletion?", yes)
            garbage = client.collect_garbage(dry_run=False)
    if as_json:
        emit(garbage)
    elif not garbage.items:
        say("Nothing to delete: every checkpoint is needed.")
    else:
        show(_sheet(garbage))
        say(_sum(garbage) + (". Nothing was changed." if dry_run else ""))


def _sum(garbage: Garbage) -> str:
    count = len(garbage.items)
    return f"{count} checkpoint{'s' * (count != 1)}, {garbage.bytes / GIB:.2f} GiB"


def _sheet(garbage: Garbage) -> Sheet:
    sheet = Sheet(
        "checkpoint",
        Column("run", drop=2),
        Column("name", wrap=True, drop=4),
        "stage",
        Column("step", right=True, drop=1),
        Column("GiB", right=True),
        Column("deleted after", drop=3),
    )
    for item in garbage.items:
        after = when(item.delete_after) or "not marked"
        sheet.add(item.id, item.run_id, item.run_name, item.stage, str(item.step), f"{item.bytes / GIB:.2f}", after)
    return sheet


def download(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="id of a checkpoint or of a model, or RUN or RUN:STAGE for the newest checkpoint there",
            autocompletion=complete.checkpoints,
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to put its files")],
) -> None:
    """Download a checkpoint and check its digests. If it is interrupted, run it again: it continues."""
    with connect() as client:
        wanted = checkpoint if checkpoint.startswith("m_") else found(client, checkpoint)
        client.download(wanted, folder)
    say(f"{folder} holds {wanted}")


def lineage(
    run_id: RunArg,
    of: Annotated[
        str | None, typer.Option(metavar="NODE", help="only what this was made from: a checkpoint's id, or stage.artifact")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what every checkpoint and score of a run was made from, as a Mermaid flowchart."""
    with connect() as client:
        made = client.lineage(run_id, of)
    if as_json:
        emit(made)
    else:
        typer.echo(made.mermaid, nl=False)
