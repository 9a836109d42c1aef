"""Commands for a user's own conversations, without any service: data check, inspect, identity. A process of its own does the work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from client import cli_base, rendering
from client.cli_base import Json, out
from client.cli_group import Group
from client.processes import READ_HERE, exit_code, given, module, start

TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", metavar="DIR", help="folder of a tokenizer; default: that of the newest run here")
]
TasksOption = Annotated[
    Path | None, typer.Option("--tasks", metavar="DIR", help="folder of task data; default: those of the newest run here")
]
ContextOption = Annotated[
    int | None, typer.Option("--context", min=1, help="tokens of a row that are kept, as model.seq_len; default 2048")
]


def register(app: typer.Typer) -> None:
    data = typer.Typer(cls=Group, no_args_is_help=True, help="Look at data before anything is trained on them.")
    cli_base.register(data, "Commands", check)
    app.add_typer(data, name="data", rich_help_panel=cli_base.DATA)
    cli_base.register(app, cli_base.DATA, identity, inspect)


def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a file of conversations: .jsonl, .json or .parquet")],
    tokenizer: TokenizerOption = None,
    tasks: TasksOption = None,
    core: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="folder of a CORE bundle; default: core/ in --tasks, or that of the newest run here"),
    ] = None,
    context: ContextOption = None,
    as_json: Json = False,
) -> None:
    """Say what a file of conversations holds: rows, tokens, what is cut, trained, broken, or asked in an evaluation.

    Ends with 1 if a run would refuse the file.
    """
    options = {"--tokenizer": tokenizer, "--tasks": tasks, "--core": core, "--context": context, "--json": as_json}
    start("nanochat.chats", "check", *given(options), "--", str(file))


def identity(
    name: Annotated[str, typer.Option(help="what the persona is called")],
    facts: Annotated[Path, typer.Option(metavar="FILE", help="what it knows about itself: one fact on each line, Markdown")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="file to write (default <name>.jsonl)")] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="conversations to train on; default 1000")] = None,
    seed: Annotated[int | None, typer.Option(help="the same seed gives the same conversations; default 42")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace files that are there")] = False,
) -> None:
    """Write conversations in which a model learns who it is, from templates: one file to train on, one to validate on."""
    options = {"--name": name, "--facts": facts, "--out": out, "--rows": rows, "--seed": seed, "--force": force}
    start("nanochat.chats", "identity", *given(options))


def inspect(
    what: Annotated[str, typer.Argument(metavar="FILE|TASK", help="a file of conversations, or a task such as gsm8k")],
    row: Annotated[int, typer.Option(min=1, help="the first to show: a line of a file, a row of a task")] = 1,
    count: Annotated[int, typer.Option(min=1, help="how many to show")] = 1,
    split: Annotated[str | None, typer.Option(help="split of a task; default: the one that is trained on")] = None,
    tokenizer: TokenizerOption = None,
    tasks: TasksOption = None,
    context: ContextOption = None,
    as_json: Json = False,
) -> None:
    """Show conversations as the model reads them, with the tokens that it learns in colour; [[…]] where there is no colour."""
    looks = {"--tokenizer": tokenizer, "--tasks": tasks, "--context": context}
    rows = {"--row": row, "--count": count, "--split": split}
    command = [sys.executable, *module("nanochat.chats", "inspect", *given({**looks, **rows}), "--", what)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **READ_HERE}, check=False
    )
    for line in done.stdout.splitlines():
        if as_json:
            typer.echo(line)
        else:
            out.print(
                rendering.shown(json.loads(line), colored=out.is_terminal and not out.no_color), soft_wrap=True, highlight=False
            )
    raise typer.Exit(exit_code(done.returncode))
