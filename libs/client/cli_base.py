"""What all commands share: the options that each of them takes, the connection, output, questions and exit codes."""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Protocol, get_args

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text
from typer.models import OptionInfo

from client import complete
from client.client import Client
from client.errors import ApiError, ClientError, NoKey, Unreachable, Unsendable
from client.settings import Settings, chosen
from client.sheet import Sheet
from client.transport import TRIES


class Code(IntEnum):
    """Exit codes; docs/cli.md explains them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    KEY = 4
    INTERRUPTED = 130


# The headings of `nanochat --help`.
RUNS, STEER, MODELS, DATA, FLEET, PLATFORM = (
    "Runs",
    "Steer a run",
    "Models",
    "Your own data",
    "Servers and keys",
    "This machine",
)

RunArg = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="id of a run, r_… (see `nanochat ps`), or its name if only one has it", autocompletion=complete.runs
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


class Named(Protocol):
    """What has an id and a name."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


class Paper(Console):
    """A console that leaves it to `everywhere` that nobody reads any more: rich would end the command with 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


MAY_BE_EMPTY = {"notes", "system"}  # then there are none
NOWHERE = Path("\0")
ID = re.compile(r"[a-z]_[0-9a-f]{16}")
out, err = Paper(), Paper(stderr=True)
_named: str | None = None  # the context of --context

# -- commands and the options that each of them takes --


def register(app: typer.Typer, panel: str, *commands: Callable[..., None], **settings: Any) -> None:
    """Add commands, each under the name of its function. `panel` is the heading in `nanochat --help`."""
    for command in commands:
        name = command.__name__.strip("_").replace("_", "-")
        app.command(name, rich_help_panel=panel, **settings)(everywhere(command))


def everywhere(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `_settle`, but for those whose names it uses itself."""
    own = inspect.signature(command, eval_str=True).parameters
    taken = {name for parameter in own.values() for name in _options(parameter)}
    added = [p for p in inspect.signature(_settle, eval_str=True).parameters.values() if not taken & set(_options(p))]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        _refuse_empty((*own.values(), *added), given)
        _settle(**{parameter.name: given.pop(parameter.name) for parameter in added})
        try:
            command(**given)
            sys.stdout.flush()
        except BrokenPipeError:  # `nanochat logs … | head`: nobody reads any more, so nothing may be written at the end either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(Code.OK) from None

    for parameter in own.values():
        _keep_empty_paths(parameter)
    everything = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own.values(), *added)]
    run.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in everything}
    return run


def _refuse_empty(parameters: Iterable[inspect.Parameter], given: dict[str, Any]) -> None:
    """Raises typer.BadParameter for an empty text. It is most often a variable of the shell that is not set, and then neither the
    default nor the folder that one is in is meant."""
    for parameter in parameters:
        if given[parameter.name] in ("", NOWHERE) and parameter.name not in MAY_BE_EMPTY:
            raise typer.BadParameter("it is empty", param_hint=_title(parameter))


def _title(parameter: inspect.Parameter) -> str:
    """What the help calls it."""
    info = parameter.annotation.__metadata__[0]
    if isinstance(info, OptionInfo):
        return next(iter(_options(parameter)), f"--{parameter.name.replace('_', '-')}")
    return info.metavar or parameter.name.upper()


def _keep_empty_paths(parameter: inspect.Parameter) -> None:
    """Let an empty text become NOWHERE, not the folder that one is in."""
    if Path in (parameter.annotation.__origin__, *get_args(parameter.annotation.__origin__)):
        for info in parameter.annotation.__metadata__:
            info.parser = _path


def _path(text: str) -> Path:
    return Path(text) if text else NOWHERE


def _options(parameter: inspect.Parameter) -> Iterable[str]:
    for info in getattr(parameter.annotation, "__metadata__", ()):
        declared = (info.default, *(info.param_decls or ()))  # in an Annotated, typer keeps the first name as the default
        yield from (name for name in declared if isinstance(name, str) and name.startswith("--"))


def _settle(
    server: Annotated[
        str | None,
        typer.Option(
            "--context",
            metavar="NAME",
            help="use this server (see `nanochat context list`)",
            rich_help_panel="Everywhere",
            autocompletion=complete.contexts,
        ),
    ] = None,
    utc: Annotated[bool, typer.Option("--utc", help="times in UTC", rich_help_panel="Everywhere")] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="no colours, as NO_COLOR=1", rich_help_panel="Everywhere")
    ] = False,
) -> None:
    global _named
    _named = server
    if utc:
        os.environ["TZ"] = "UTC"  # for the processes that a command starts, too
        time.tzset()
    if no_color:
        os.environ["NO_COLOR"] = "1"
        out.no_color = err.no_color = True


# -- the server --


def settings() -> Settings:
    return chosen(_named)


def context() -> str | None:
    """The name after --context."""
    return _named


def connect(*, tries: int = TRIES) -> Client:
    """A client of the chosen server. `tries`: how often a request is sent at most when there is no answer; with 1, for a command
    that asks again and again, it is left to the command to say that there is none."""
    found = settings()
    return Client(found.api_url, found.require_key(), tries=tries, waits=None if tries == 1 else waits)


def waits(url: str) -> None:
    """Say that a server takes its time."""
    warn(f"waiting for an answer from {url}; Ctrl-C ends that")


def require_stage(client: Client, run_id: str, stage: str | None) -> None:
    """Raises typer.BadParameter if the run has no such stage, which the API answers as one that has printed and reported nothing."""
    if stage is None:
        return
    names = [known.name for known in client.run(run_id).stages]
    if stage not in names:
        raise typer.BadParameter(f"the run has no stage {stage!r}; it has {', '.join(names)}", param_hint="--stage")


# -- output --


def say(*lines: str) -> None:
    """Print lines; a terminal breaks them between words. No markup is read."""
    for line in lines:
        out.print(Text(line), soft_wrap=not out.is_terminal)


def say_whole(line: str) -> None:
    """Print a line that is to be copied: it is never broken."""
    out.print(Text(line), soft_wrap=True)


def warn(*lines: str) -> None:
    """Print lines on stderr: what a person should know and a program should not read."""
    for line in lines:
        err.print(Text(line), soft_wrap=not err.is_terminal)


def show(sheet: Sheet) -> None:
    """A table on a terminal, tab-separated text elsewhere."""
    if out.is_terminal:
        out.print(sheet)
        return
    for line in sheet.tsv():
        typer.echo(line)


def tell(answer: BaseModel, line: str, as_json: bool) -> None:
    """What a request came to: the answer as JSON, or a line."""
    if as_json:
        emit(answer)
    else:
        say(line)


def emit(answer: BaseModel | list[Any] | dict[str, Any] | None) -> None:
    """JSON, as the API answered. A list becomes {"items": […]}, as in the API."""
    if isinstance(answer, list):
        answer = {"items": answer}
    typer.echo(json.dumps(answer, default=_jsonable, indent=1, ensure_ascii=False))


def emit_line(answer: BaseModel) -> None:
    """JSON on one line, for what goes on."""
    typer.echo(answer.model_dump_json())
    sys.stdout.flush()


def _jsonable(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)


def one_of(items: Iterable[Named], wanted: str, what: str) -> str:
    """The id of the item that has `wanted` as its id, or alone has it as its name. Raises ClientError."""
    found = list(items)
    named = [item.id for item in found if item.name == wanted]
    if wanted in (item.id for item in found) or (not named and ID.fullmatch(wanted)):
        return wanted  # an id that is not in the list is refused by the server, with its reason
    if not named:
        raise ClientError(f"no {what} has the id or the name {wanted!r}; list them to see which there are")
    if len(named) > 1:
        raise ClientError(f"{len(named)} {what}s have the name {wanted!r}; give the id of one: {', '.join(named)}")
    return named[0]


def confirm(question: str, yes: bool) -> None:
    """Ask before something is destroyed, if there is somebody to ask. Ends the command if the answer is no."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    if not typer.confirm(question, err=True):
        warn("Nothing was changed.")
        raise typer.Exit(Code.FAILED)


def code_of(error: ClientError) -> Code:
    """The exit code of a command that ended with this error."""
    if isinstance(error, Unreachable):
        return Code.NO_ANSWER
    if isinstance(error, NoKey):
        return Code.KEY
    if isinstance(error, Unsendable):
        return Code.USAGE
    if isinstance(error, ApiError):
        return {401: Code.KEY, 403: Code.KEY, 422: Code.USAGE}.get(error.status, Code.FAILED)
    return Code.FAILED
