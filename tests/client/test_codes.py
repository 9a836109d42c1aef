"""What every command has in common: the options, the exit codes that docs/cli.md lists, and completion."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from client.cli import app
from client.cli_base import Code, code_of
from client.errors import ApiError, ClientError, FieldError, NoKey, Unreachable
from client.processes import exit_code
from nanochat.contract.contract import Exit

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
# They print no data: they start processes that print what they do, or only say that something is gone.
NO_JSON = {
    *("up", "down", "demo", "local-run", "identity", "export", "import", "download", "delete"),
    *("context add", "context use", "context remove", "webhook delete", "sweep delete", "sweep plot"),
}


def commands(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_the_common_options(name: str, command: Any) -> None:
    options = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
    assert {"--utc", "--no-color", "--context"} <= set(options)
    assert len(options) == len(set(options))  # of two with one name, only the last would be heard
    assert ("--json" in options) is (name not in NO_JSON)
    assert command.help


def test_every_command_stands_in_the_page() -> None:
    words = set(re.findall(r"[a-z][a-z-]+", PAGE))
    assert {name.split()[0] for name, _ in commands()} <= words


def test_the_page_lists_every_exit_code() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)} == {int(code) for code in Code}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClientError("x"), Code.FAILED),
        (ApiError(404, "No such run"), Code.FAILED),
        (ApiError(409, "Not possible"), Code.FAILED),
        (ApiError(500, "Failed"), Code.FAILED),
        (ApiError(422, "Not valid"), Code.USAGE),
        (Unreachable("http://x", OSError("refused")), Code.NO_ANSWER),
        (NoKey("no key"), Code.KEY),
        (ApiError(401, "A valid key is needed"), Code.KEY),
        (ApiError(403, "The role does not allow that"), Code.KEY),
    ],
)
def test_an_error_has_its_code(error: ClientError, code: Code) -> None:
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (0, Code.OK),
        (1, Code.FAILED),
        (2, Code.USAGE),
        (Exit.BAD_INPUT, Code.USAGE),
        (Exit.STOPPED, Code.INTERRUPTED),
        (128 + signal.SIGINT, Code.INTERRUPTED),
        (128 + signal.SIGKILL, Code.FAILED),
    ],
)
def test_a_command_ends_as_its_process_did(ended: int, code: Code) -> None:
    assert exit_code(ended) == code


def test_a_detail_that_repeats_the_fields_is_left_out() -> None:
    error = ApiError(
        422, "Not valid", "name: too long; recipe: unknown", [FieldError("name", "too long"), FieldError("recipe", "unknown")]
    )
    assert str(error) == "Not valid (422)\n  name: too long\n  recipe: unknown"
    assert "only one" in str(ApiError(422, "Not valid", "only one may be given", [FieldError("name", "remove it")]))
