"""The `nanochat` command, such as `nanochat submit tiny --watch`. docs/cli.md lists the commands by task, and the exit codes."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from client import (
    cli_chat,
    cli_chats,
    cli_checkpoints,
    cli_compare,
    cli_contexts,
    cli_interchange,
    cli_keys,
    cli_leaderboard,
    cli_local,
    cli_metrics,
    cli_models,
    cli_queue,
    cli_runs,
    cli_stack,
    cli_steer,
    cli_storage,
    cli_sweeps,
    cli_webhooks,
    cli_workers,
)
from client.cli_base import Code, code_of, settings, warn
from client.cli_group import Group
from client.errors import ApiError, ClientError
from client.printable import visible

app = typer.Typer(
    cls=Group,
    help="POST a recipe, get a ChatGPT you trained yourself.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
# In the order of `nanochat --help`.
for room in (
    cli_stack,
    cli_runs,
    cli_metrics,
    cli_compare,
    cli_leaderboard,
    cli_local,
    cli_sweeps,
    cli_steer,
    cli_queue,
    cli_models,
    cli_chat,
    cli_checkpoints,
    cli_interchange,
    cli_storage,
    cli_chats,
    cli_contexts,
    cli_keys,
    cli_workers,
    cli_webhooks,
):
    room.register(app)


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
        app(argv, prog_name="nanochat")
    except ClientError as err:
        warn(visible(f"nanochat: {err}"))
        if isinstance(err, ApiError) and err.status == 401:
            warn(f"  the key that was sent is that of {settings().key_from}")
        raise SystemExit(code_of(err)) from None
    except OSError as err:  # a full disk, a folder that nobody may write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what did not fit is not written once more at the end
        warn(visible(f"nanochat: {err.strerror or err}{f': {err.filename}' if err.filename else ''}"))
        raise SystemExit(Code.FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(Code.INTERRUPTED) from None
