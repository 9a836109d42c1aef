"""The commands for checkpoints: checkpoints list, pin, unpin, promote, demote, delete; and promote."""

from __future__ import annotations

from typing import Annotated

import typer

from client import cli_base, complete
from client.checkpoint_models import Checkpoint
from client.cli_base import Json, RunArg, Yes, confirm, connect, emit, show, tell, warn
from client.cli_group import Group
from client.client import Client
from client.errors import ApiError, ClientError
from client.sheet import Column, Sheet
from client.text import when

CheckpointArg = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="id of a checkpoint, c_… (see `nanochat checkpoints list`), or RUN or RUN:STAGE for the newest one of a run or a stage",
        autocompletion=complete.checkpoints,
    ),
]
checkpoints = typer.Typer(cls=Group, help="List, pin, promote and delete checkpoints.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    cli_base.register(checkpoints, "Commands", list_, pin, unpin, promote, demote, delete)
    app.add_typer(checkpoints, name="checkpoints", rich_help_panel=cli_base.MODELS)
    cli_base.register(app, cli_base.MODELS, promote)


def list_(run_id: RunArg, as_json: Json = False) -> None:
    """List the checkpoints of a run that are on disk, those of the last stage first."""
    with connect() as client:
        items = client.checkpoints(run_id)
    if as_json:
        emit(items)
        return
    if not items:
        warn("No checkpoints yet: a training stage saves them.")
        return
    sheet = Sheet(
        "id",
        "stage",
        Column("step", right=True),
        Column("bits/byte", right=True, drop=2),
        Column("GB", right=True, drop=3),
        Column("created", drop=4),
        Column("marks", drop=1),
    )
    for c in items:
        marks = [mark for mark, given in (("promoted", c.promoted_at), ("pinned", c.pinned_at), ("final", c.final)) if given]
        bpb = "" if c.val_bpb is None else f"{c.val_bpb:.4f}"
        sheet.add(c.id, c.stage, str(c.step), bpb, f"{c.bytes / 1e9:.2f}", when(c.created_at), " ".join(marks))
    show(sheet)


def pin(checkpoint: CheckpointArg, as_json: Json = False) -> None:
    """Keep a checkpoint until it is unpinned."""
    with connect() as client:
        _tell(client.pin(found(client, checkpoint)), "pinned", as_json)


def unpin(checkpoint: CheckpointArg, as_json: Json = False) -> None:
    """Let garbage collection delete a checkpoint again."""
    with connect() as client:
        _tell(client.pin(found(client, checkpoint), pinned=False), "unpinned", as_json)


def promote(checkpoint: CheckpointArg, as_json: Json = False) -> None:
    """Offer a checkpoint to the inference service."""
    with connect() as client:
        _tell(client.promote(found(client, checkpoint)), "promoted", as_json)


def demote(checkpoint: CheckpointArg, as_json: Json = False) -> None:
    """Take a promotion back."""
    with connect() as client:
        _tell(client.demote(found(client, checkpoint)), "demoted", as_json)


def delete(checkpoint: CheckpointArg, yes: Yes = False, as_json: Json = False) -> None:
    """Delete a checkpoint that nothing needs for good."""
    with connect() as client:
        checkpoint_id = found(client, checkpoint)
        confirm(f"Delete the checkpoint {checkpoint_id} for good?", yes)
        _tell(client.delete_checkpoint(checkpoint_id), "deleted", as_json)


def found(client: Client, wanted: str) -> str:
    """The id of a checkpoint; for `RUN` or `RUN:STAGE` that of the newest one there. Raises ClientError."""
    if wanted.startswith("c_"):
        return wanted
    try:
        items, stage = client.checkpoints(wanted), ""
    except ApiError as err:
        run, colon, stage = wanted.rpartition(":")
        if err.status != 404 or not colon:
            raise
        items = [one for one in client.checkpoints(run) if one.stage == stage]
    if not items:
        raise ClientError(f"{wanted} has no checkpoints" + (": there may be no such stage" if stage else ""))
    return items[0].id


def _tell(checkpoint: Checkpoint, what: str, as_json: bool) -> None:
    tell(checkpoint, f"{checkpoint.id} {what}", as_json)
