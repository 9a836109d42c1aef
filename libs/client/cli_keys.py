"""The commands for API keys: keys make, list, expire, revoke; and audit."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import Json, connect
from client.models import Key
from client.text import console

out = console()
UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}

KeyArg = Annotated[str, typer.Argument(metavar="KEY", help="id of a key, k_… (see `nanochat keys list`)")]
keys = typer.Typer(help="Make, list, expire and revoke API keys. Needs the key of an admin.", no_args_is_help=True)


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


def register(app: typer.Typer) -> None:
    for command in (make, list_, expire, revoke):
        keys.command(command.__name__.rstrip("_"))(command)
    app.add_typer(keys, name="keys")
    app.command("audit")(audit)


def make(
    name: Annotated[str, typer.Argument(help="whom or what the key is for")],
    role: Annotated[
        Role, typer.Option(help="viewer: read; operator: also start and steer runs; admin: also manage keys")
    ] = Role.OPERATOR,
    project: Annotated[str, typer.Option(help="project whose runs the key sees; a new name makes a new project")] = "default",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="lifetime, such as 12h or 30d; without it, for ever")
    ] = None,
) -> None:
    """Make a key and print it. It cannot be printed again."""
    with connect() as client:
        typer.echo(client.make_key(name, role, project, None if expires is None else _after(expires)).secret)


def list_(as_json: Json = False) -> None:
    """List all keys, without their secrets."""
    with connect() as client:
        items = client.keys()
    if as_json:
        typer.echo("\n".join(key.model_dump_json() for key in items))
        return
    table = Table("id", "name", "role", "project", "created", "state", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key in items:
        table.add_row(key.id, key.name, key.role, key.project, _time(key.created_at), _state(key))
    out.print(table)


def expire(
    key_id: KeyArg,
    within: Annotated[str, typer.Option("--in", metavar="TIME", help="such as 0m, 12h or 30d; `never` takes the end away")],
) -> None:
    """Set when a key expires."""
    with connect() as client:
        key = client.expire_key(key_id, None if within == "never" else _after(within))
    typer.echo(f"{key.id} {_state(key)}")


def revoke(key_id: KeyArg) -> None:
    """Revoke a key for good."""
    with connect() as client:
        key = client.revoke_key(key_id)
    typer.echo(f"{key.id} {_state(key)}")


def audit(
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many requests, newest first")] = 50, as_json: Json = False
) -> None:
    """List who asked for which change, and how it ended. Needs the key of an admin."""
    with connect() as client:
        page = client.audit(limit=limit)
    if as_json:
        typer.echo(page.model_dump_json(indent=1))
        return
    table = Table("time", "key", "project", "action", "target", "outcome", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for entry in page.items:
        target = " ".join([*entry.target.values(), *([f"→ {entry.made}"] if entry.made else [])])
        table.add_row(_time(entry.at), entry.key_name, entry.project, entry.action, target, entry.outcome or "unknown")
    out.print(table)


def _after(text: str) -> datetime:
    found = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not a time; write minutes, hours or days, such as 90m, 12h or 30d")
    return datetime.now(UTC) + int(found[1]) * UNITS[found[2]]


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return f"revoked {_time(key.revoked_at)}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= datetime.now(UTC) else 'valid until'} {_time(key.expires_at)}"


def _time(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")
