"""Commands that need no API: local-run, and plan with named GPUs. Each starts a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from client import cli_base
from client.cli_base import Code
from client.cli_options import DataOption, FirstOption, FromOption, RecipeArg, SetOption, overrides_of
from client.models import Plan

BAD_INPUT, STOPPED = 64, 75  # of nanochat.contract.contract.Exit; the client may not import nanochat


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
    raise typer.Exit(told(hand_over(["-m", "nanochat.local.run", recipe, *given(options), *trackers])))


def plan_here(recipe: str, overrides: dict[str, Any], hardware: Sequence[str]) -> Plan:
    """The plan that `POST /v1/runs/plan` would return for these GPUs. `hardware` holds options of `nanochat.local.plan`.

    Raises typer.Exit if the recipe is refused; the process has then printed why on stderr.
    """
    command = [sys.executable, "-m", "nanochat.local.plan", recipe, "--overrides", json.dumps(overrides), *hardware]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise typer.Exit(told(done.returncode))
    return Plan.model_validate_json(done.stdout)


def given(options: Mapping[str, object]) -> list[str]:
    """The options that have a value, as arguments."""
    return [f"{option}={value}" for option, value in options.items() if value is not None]


def told(code: int) -> int:
    """The exit code of a command whose process ended with `code`. A process that was stopped was stopped by Ctrl-C."""
    return {0: Code.OK, 2: Code.USAGE, BAD_INPUT: Code.USAGE, STOPPED: Code.INTERRUPTED}.get(code, Code.FAILED)


def hand_over(arguments: list[str]) -> int:
    """Run Python with these arguments and return its exit code. On Ctrl-C it waits: the terminal signals the child as well.

    The handlers are in place before the child is, so no signal ends this process and leaves the child behind.
    """
    child: subprocess.Popen[bytes] | None = None
    told = False

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        if child is not None:
            child.terminate()

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(signal.SIGINT, lambda *_: None)  # unlike SIG_IGN, a handler is not inherited by the child
    child = subprocess.Popen([sys.executable, *arguments])
    if told:  # while the child was being made
        child.terminate()
    code = child.wait()
    return code if code >= 0 else 128 - code
