"""The commands for API keys: keys make, list, expire, revoke; and audit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Json, Yes, confirm, connect, emit, one_of, say_whole, show, tell, warn
from client.cli_group import Group
from client.client import Client
from client.key_models import Key
from client.sheet import Column, Sheet
from client.text import when

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

KeyArg = Annotated[
    str,
    typer.Argument(
        metavar="KEY", help="id of a key, k_… (see `nanochat keys list`), or its name", autocompletion=complete.keys
    ),
]
keys = typer.Typer(cls=Group, help="Make, list, expire and revoke API keys. Needs the key of an admin.", no_args_is_help=True)


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    cli_base.register(keys, "Commands", make, list_, expire, revoke)
    app.add_typer(keys, name="keys", rich_help_panel=cli_base.FLEET)
    cli_base.register(app, cli_base.FLEET, audit)


def make(
    name: Annotated[str, typer.Argument(help="whom or what the key is for")],
    role: Annotated[
        Role, typer.Option(help="viewer: read; operator: also start and steer runs; admin: also manage keys")
    ] = Role.OPERATOR,
    project: Annotated[str, typer.Option(help="project whose runs the key sees; a new name makes a new project")] = "default",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="lifetime, such as 12h or 30d; without it, for ever")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It cannot be printed again."""
    with connect() as client:
        made = client.make_key(name, role, project, None if expires is None else _after(expires))
    if as_json:
        emit(made)
    else:
        say_whole(made.secret)


def list_(as_json: Json = False) -> None:
    """List all keys, without their secrets."""
    with connect() as client:
        items = client.keys()
    if as_json:
        emit(items)
        return
    sheet = Sheet(
        "id",
        Column("name", wrap=True),
        "role",
        Column("project", drop=1),
        Column("created", drop=3),
        Column("state", wrap=True),
    )
    for key in items:
        sheet.add(key.id, key.name, key.role, key.project, when(key.created_at), _state(key))
    show(sheet)


def expire(
    key: KeyArg,
    within: Annotated[str, typer.Option("--in", metavar="TIME", help="such as 0m, 12h or 30d; `never` takes the end away")],
    as_json: Json = False,
) -> None:
    """Set when a key expires."""
    with connect() as client:
        changed = client.expire_key(_id(client, key), None if within == "never" else _after(within))
    _tell(changed, as_json)


def revoke(key: KeyArg, yes: Yes = False, as_json: Json = False) -> None:
    """Revoke a key for good."""
    with connect() as client:
        key_id = _id(client, key)
        confirm(f"Revoke the key {key}? Programs that use it are refused from then on.", yes)
        revoked = client.revoke_key(key_id)
    _tell(revoked, as_json)


def audit(
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many requests, newest first")] = 50, as_json: Json = False
) -> None:
    """List who asked for which change, and how it ended. Needs the key of an admin."""
    with connect() as client:
        page = client.audit(limit=limit)
    if as_json:
        emit(page)
        return
    if not page.items:
        warn("No request for a change yet.")
        return
    sheet = Sheet(
        Column("time", drop=1),
        Column("key", wrap=True),
        Column("project", drop=4),
        "action",
        Column("target", wrap=True),
        Column("outcome", drop=2, wrap=True),
    )
    for entry in page.items:
        target = " ".join([*entry.target.values(), *([f"→ {entry.made}"] if entry.made else [])])
        sheet.add(when(entry.at), entry.key_name, entry.project, entry.action, target, entry.outcome or "unknown")
    show(sheet)


def _id(client: Client, wanted: str) -> str:
    items = client.keys()
    return one_of((key for key in items if key.revoked_at is None), wanted, "key")


def _tell(key: Key, as_json: bool) -> None:
    tell(key, f"{key.id} {_state(key)}", as_json)


def _after(text: str) -> datetime:
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a time; write minutes, hours or days, such as 90m, 12h or 30d")
    return datetime.now(UTC) + int(found[1]) * UNITS[found[2]]


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {when(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= datetime.now(UTC) else 'valid until'} {when(key.expires_at)}"
