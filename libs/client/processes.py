"""Commands whose work a process of its own does: its arguments, its signals and its exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from types import FrameType
from typing import NoReturn

import typer

from client.cli_base import Code

BAD_INPUT, STOPPED = 64, 75  # of nanochat.contract.contract.Exit; the client may not import nanochat
CODES = {
    0: Code.OK,
    2: Code.USAGE,
    BAD_INPUT: Code.USAGE,
    STOPPED: Code.INTERRUPTED,
    128 + signal.SIGINT: Code.INTERRUPTED,
}

# As `python -m MODULE ARGUMENTS`, but Ctrl-C, which the terminal sends to the child too, prints no traceback: the child may still import.
# Nor do a full disk, a folder that nobody may write, and `| head`, whose end is no failure.
MODULE = """
import os, sys
told = sys.excepthook
sys.excepthook = lambda kind, error, trace: None if issubclass(kind, KeyboardInterrupt) else told(kind, error, trace)
sys.stdout.reconfigure(errors="replace")
import runpy
del sys.argv[0]
try:
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    finally:
        sys.stdout.flush()
except OSError as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        sys.exit(0)
    where = f": {error.filename}" if error.filename else ""
    sys.exit(f"nanochat: {error.strerror or error}{where}")
"""
# A child whose output is read here writes UTF-8, whatever the locale says.
READ_HERE = {"PYTHONIOENCODING": "utf-8"}


def module(name: str, *arguments: str) -> list[str]:
    """The arguments with which Python runs a module as a process of a command."""
    return ["-c", MODULE, name, *arguments]


def given(options: Mapping[str, object]) -> list[str]:
    """The options that have a value, as arguments. True is a flag, False is one that was not given."""
    named = {option: value for option, value in options.items() if value is not None and value is not False}
    return [option if value is True else f"{option}={value}" for option, value in named.items()]


def start(name: str, *arguments: str) -> NoReturn:
    """Let a process of its own do the work of a command, and end the command with its exit code."""
    raise typer.Exit(exit_code(hand_over(module(name, *arguments))))


def exit_code(code: int) -> Code:
    """The exit code of a command whose process ended with `code`. A process that was stopped was stopped by Ctrl-C."""
    return CODES.get(code, Code.FAILED)


def hand_over(arguments: list[str]) -> int:
    """Run Python with these arguments and return its exit code. On Ctrl-C it waits: the terminal signals the child as well.

    The handlers are in place before the child is, so no signal ends this process and leaves the child behind.
    """
    child: subprocess.Popen[bytes] | None = None
    asked = False

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.terminate()

    signal.signal(signal.SIGTERM, on_sigterm)
    signal.signal(signal.SIGINT, lambda *_: None)  # unlike SIG_IGN, a handler is not inherited by the child
    child = subprocess.Popen([sys.executable, *arguments])
    if asked:  # while the child was being made
        child.terminate()
    code = child.wait()
    return code if code >= 0 else 128 - code
