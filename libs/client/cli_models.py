"""The commands for trained models: models; and which model a person means."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from client import cli_base
from client.checkpoint_models import Model
from client.cli_base import Json, connect, emit, show, warn
from client.errors import ClientError
from client.sheet import Column, Sheet
from client.text import when


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.MODELS, models)


def models(as_json: Json = False) -> None:
    """List the models you can chat with, newest first."""
    with connect() as client:
        items = client.models()
    if as_json:
        emit(items)
        return
    if not items:
        warn("No models yet. Train one: nanochat submit tiny --watch")
        return
    sheet = Sheet(
        "id",
        Column("run", drop=1),
        Column("name", wrap=True),
        Column("stage", drop=2),
        Column("step", right=True, drop=3),
        Column("created", drop=4),
    )
    for model in items:
        sheet.add(model.id, model.run_id, model.run_name, model.stage, str(model.step), when(model.created_at))
    show(sheet)


def find(items: Sequence[Model], wanted: str) -> Model:
    """The model of this id, or the newest of the run of this id or name. Raises ClientError."""
    for model in items:
        if model.id == wanted:
            return model
    of_run = [model for model in items if wanted in (model.run_id, model.run_name)]
    if not of_run:
        raise ClientError(f"there is no model {wanted!r}: `nanochat models` lists those there are")
    if len({model.run_id for model in of_run}) > 1:
        raise ClientError(
            f"several runs are named {wanted!r}; give the id of a model: {', '.join(model.id for model in of_run)}"
        )
    return of_run[0]
