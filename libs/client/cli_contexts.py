"""The commands for several servers: context add, use, list, remove; and whoami."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from client import cli_base, complete, contexts
from client.cli_base import Json, Yes, confirm, connect, emit, say, settings, show, warn
from client.cli_group import Group
from client.contexts import NAME, Context
from client.errors import ClientError
from client.printable import clean
from client.sheet import Column, Sheet
from client.text import when

context = typer.Typer(cls=Group, help="Name the servers that you use, and choose one of them.", no_args_is_help=True)
NameArg = Annotated[str, typer.Argument(metavar="NAME", help="name of a context", autocompletion=complete.contexts)]


def register(app: typer.Typer) -> None:
    cli_base.register(context, "Commands", add, use, list_, remove)
    app.add_typer(context, name="context", rich_help_panel=cli_base.FLEET)
    cli_base.register(app, cli_base.FLEET, whoami)


def whoami(as_json: Json = False) -> None:
    """Show which server and which key commands use, and what the key may do."""
    used = settings()
    with connect() as client:
        key = client.own_key()
    if as_json:
        emit({"context": used.context, "api_url": used.api_url, "key": key})
        return
    until = when(key.expires_at)
    say(
        clean(f"{key.name} ({key.id}), {key.role} of the project {key.project}" + (f", until {until}" if until else "")),
        f"{used.api_url}" + (f", context {used.context}" if used.context else ""),
    )


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="name for this server, such as lab")],
    api: Annotated[str, typer.Option(metavar="URL", help="address of the control API")],
    inference: Annotated[str | None, typer.Option(metavar="URL", help="address of the inference service, for chat")] = None,
    ui: Annotated[str | None, typer.Option(metavar="URL", help="address of the dashboard")] = None,
    key_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="file with an API key, read each time; - reads a key from stdin and keeps it"),
    ] = None,
) -> None:
    """Add a server, or change one. The first one is used from then on."""
    if not NAME.fullmatch(name):
        raise typer.BadParameter(f"{name!r} is no name: letters, digits, . _ and -, at most 63", param_hint="NAME")
    for option, url in (("--api", api), ("--inference", inference), ("--ui", ui)):
        if url is not None and not url.startswith(("http://", "https://")):
            raise typer.BadParameter(f"{url!r} does not begin with http:// or https://", param_hint=option)
    key = sys.stdin.readline().strip() if key_file == "-" else None
    if key == "":
        raise typer.BadParameter("there is no key on stdin", param_hint="--key-file")
    file = Path(os.path.expanduser(key_file)).absolute() if key_file and key is None else None
    if file is not None and not file.is_file():
        raise typer.BadParameter(f"there is no file {file}", param_hint="--key-file")
    known = contexts.load()
    known.contexts[name] = Context(
        api_url=api, inference_url=inference, ui_url=ui, key_file=str(file) if file is not None else None, key=key
    )
    known.current = known.current or name
    contexts.save(known)
    say(f"{name} {api}" + ("  (in use)" if known.current == name else f"  (use it: nanochat context use {name})"))


def use(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="name of a context; left out: the platform of this folder", autocompletion=complete.contexts
        ),
    ] = None,
) -> None:
    """Use a server from now on. Without a name: the platform that `nanochat up` starts here."""
    known = contexts.load()
    if name is not None:
        known.named(name)
    known.current = name
    contexts.save(known)
    say(f"{name} {known.contexts[name].api_url}" if name is not None else "no context: the platform of the folder you are in")


def list_(as_json: Json = False) -> None:
    """List the servers. Keys are not shown."""
    known = contexts.load()
    if as_json:
        shown = [
            {"name": name, "current": name == known.current, **one.model_dump(exclude={"key"})}
            for name, one in known.contexts.items()
        ]
        emit(shown)
        return
    if not known.contexts:
        warn("No contexts yet. Add one: nanochat context add NAME --api URL --inference URL --key-file FILE")
        return
    sheet = Sheet("", "name", Column("API"), Column("inference", drop=3), Column("dashboard", drop=4), Column("key", drop=2))
    for name, one in known.contexts.items():
        key = one.key_file or ("stored" if one.key else "none")
        sheet.add("*" if name == known.current else " ", name, one.api_url, one.inference_url or "", one.ui_url or "", key)
    show(sheet)


def remove(name: NameArg, yes: Yes = False) -> None:
    """Forget a server."""
    known = contexts.load()
    if name not in known.contexts:
        raise ClientError(f"no context {name!r}")
    confirm(f"Forget the context {name}?", yes)
    del known.contexts[name]
    if known.current == name:
        known.current = None
    contexts.save(known)
    say(f"{name} removed")
