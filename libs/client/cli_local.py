"""Commands that need no API: local-run, and plan with named GPUs. Each starts a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from client import cli_base
from client.cli_options import DataOption, FirstOption, FromOption, RecipeArg, SetOption, overrides_of
from client.plan_models import Plan
from client.processes import READ_HERE, exit_code, given, module, start


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.RUNS, local_run)


def local_run(
    recipe: RecipeArg,
    set_: SetOption = None,
    data: DataOption = None,
    from_: FromOption = None,
    first: FirstOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="directory of the run (default .nanochat/local/<recipe>)")
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="processes per training stage (one per GPU)")] = 1,
    log: Annotated[
        list[str] | None, typer.Option(metavar="TRACKER", help="also log to tensorboard, trackio or wandb; repeat for several")
    ] = None,
) -> None:
    """Run a whole recipe on this machine, without any service. Run it again with the same --out to resume."""
    options = {"--overrides": json.dumps(overrides_of(set_, data, from_, first)), "--out": out, "--nproc": nproc}
    trackers = ["--log", *log] if log else []
    start("nanochat.local.run", recipe, *given(options), *trackers)


def plan_here(recipe: str, overrides: dict[str, Any], hardware: Sequence[str]) -> Plan:
    """The plan that `POST /v1/runs/plan` would return for these GPUs. `hardware` holds options of `nanochat.local.plan`.

    Raises typer.Exit if the recipe is refused; the process has then printed why on stderr.
    """
    command = [sys.executable, *module("nanochat.local.plan", recipe, "--overrides", json.dumps(overrides), *hardware)]
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, **READ_HERE}, check=False)
    if done.returncode:
        raise typer.Exit(exit_code(done.returncode))
    return Plan.model_validate_json(done.stdout)
