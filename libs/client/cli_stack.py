"""The commands for the platform on this machine: up, down, demo, doctor. A process of its own does the work."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from client import cli_base
from client.cli_base import Json
from client.cli_options import DataOption, SetOption, overrides_of
from client.errors import ClientError
from client.processes import given, start

HomeOption = Annotated[
    Path | None, typer.Option("--home", metavar="FOLDER", help="folder of the platform (default NANOCHAT_HOME, or .nanochat)")
]


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.PLATFORM, up, down, demo, doctor)


def up(home: HomeOption = None) -> None:
    """Start the whole platform on this machine, with its own Postgres and Redis. Ctrl-C stops everything."""
    _standalone(home, "up")


def down(home: HomeOption = None) -> None:
    """Stop the platform that `nanochat up` started in another terminal. Training saves a checkpoint first."""
    _standalone(home, "down")


def demo(
    data: DataOption = None,
    set_: SetOption = None,
    once: Annotated[bool, typer.Option("--once", help="stop the platform at the end")] = False,
    home: HomeOption = None,
) -> None:
    """Start the platform, train a small chat model in minutes and ask it a question."""
    overrides_of(set_, data)  # refuses what cannot be read
    os.environ.update({"DATA": str(data or ""), "SET": "\n".join(set_ or []), "ONCE": "1" if once else ""})
    _standalone(home, "demo")


def doctor(as_json: Json = False) -> None:
    """Find what keeps this machine from running the platform, and say what to do about it."""
    _start("services.standalone.doctor", *given({"--json": as_json}))


def _standalone(home: Path | None, command: str) -> None:
    if home is not None:
        os.environ["NANOCHAT_HOME"] = os.path.abspath(os.path.expanduser(home))
    _start("services.standalone", command)


def _start(module: str, *arguments: str) -> None:
    if importlib.util.find_spec("services") is None or importlib.util.find_spec("psutil") is None:
        raise ClientError(
            "the platform itself is not installed here, only its client: pip install 'nanochat-platform[standalone]'"
        )
    start(module, *arguments)
