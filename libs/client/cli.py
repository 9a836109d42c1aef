"""The `nanochat` command, such as `nanochat submit tiny --watch`. Exit codes: 0 success, 1 failure, 2 wrong usage."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer
from rich.console import Console

from client import (
    cli_chats,
    cli_checkpoints,
    cli_interchange,
    cli_keys,
    cli_local,
    cli_models,
    cli_queue,
    cli_runs,
    cli_steer,
    cli_storage,
    cli_sweeps,
    cli_webhooks,
    cli_workers,
)
from client.errors import ApiError, ClientError

app = typer.Typer(
    help="POST a recipe, get a ChatGPT you trained yourself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cli_local.register(app)
cli_chats.register(app)
cli_runs.register(app)
cli_steer.register(app)
cli_models.register(app)
cli_checkpoints.register(app)
cli_keys.register(app)
cli_queue.register(app)
cli_interchange.register(app)
cli_storage.register(app)
cli_sweeps.register(app)
cli_workers.register(app)
cli_webhooks.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"nanochat {metadata.version('nanochat-platform')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> None:
    """Entry point. An error becomes a message on stderr and an exit code, never a traceback."""
    try:
        app(argv)
    except ClientError as err:
        Console(stderr=True).print(f"nanochat: {err}", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(2 if isinstance(err, ApiError) and err.status == 422 else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:  # `nanochat logs … | head`
        sys.stderr.close()
        raise SystemExit(0) from None
