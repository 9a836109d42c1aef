"""The commands for webhooks: webhook make, list, change, rotate, ping, deliveries, redeliver, delete."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from client.cli_runs import Json, connect
from client.text import console
from client.webhooks import Delivery, Webhook

PING_WAIT_S = 30.0  # a try takes at most 15 s
POLL_S = 0.5

out = console()
webhook = typer.Typer(help="Send the events of runs to other programs. Needs the key of an operator.", no_args_is_help=True)

HookArg = Annotated[str, typer.Argument(metavar="WEBHOOK", help="id of a webhook, h_… (see `nanochat webhook list`)")]
DeliveryArg = Annotated[str, typer.Argument(metavar="DELIVERY", help="id of a delivery, msg_…")]
KindOption = Annotated[
    list[str] | None, typer.Option("--kind", help="kind of event, such as run_status or budget_warning; may be repeated")
]
LabelOption = Annotated[list[str] | None, typer.Option("--label", help="only runs with this label; may be repeated")]


class Format(StrEnum):
    JSON = "json"
    SLACK = "slack"


class Status(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


def register(app: typer.Typer) -> None:
    for command in (make, list_, change, rotate, ping, deliveries, redeliver, delete):
        webhook.command(command.__name__.rstrip("_"))(command)
    app.add_typer(webhook, name="webhook")


def make(
    url: Annotated[str, typer.Argument(metavar="URL", help="where to POST the events, https://…")],
    name: Annotated[str, typer.Option(help="name of the webhook")],
    kind: KindOption = None,
    format: Annotated[Format, typer.Option(help="form of the body; slack is for Slack's incoming webhooks")] = Format.JSON,
    run: Annotated[str | None, typer.Option(help="only events of this run: its id or name")] = None,
    label: LabelOption = None,
) -> None:
    """Make a webhook and print its id and its secret. The secret cannot be printed again."""
    with connect() as client:
        made = client.webhooks.make(name, url, kinds=kind or None, format=format, run=run, labels=label or ())
    typer.echo(f"{made.id} {made.secret}")


def list_(as_json: Json = False) -> None:
    """List the project's webhooks and how they are doing."""
    with connect() as client:
        items, cursor = [], None
        while True:
            page = client.webhooks.page(limit=200, cursor=cursor)
            items += page.items
            if (cursor := page.next_cursor) is None:
                break
    if as_json:
        typer.echo("\n".join(item.model_dump_json() for item in items))
        return
    table = Table("id", "name", "host", "kinds", "waiting", "state", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for item in items:
        table.add_row(item.id, item.name, item.origin, ", ".join(item.kinds), str(item.waiting), _state(item))
    out.print(table)


def change(
    webhook_id: HookArg,
    name: Annotated[str | None, typer.Option(help="new name")] = None,
    url: Annotated[str | None, typer.Option(help="new URL")] = None,
    kind: KindOption = None,
    format: Annotated[Format | None, typer.Option(help="new form of the body")] = None,
    label: LabelOption = None,
    active: Annotated[bool | None, typer.Option("--on/--off", help="switch it on or off")] = None,
) -> None:
    """Change a webhook, or switch it off or on."""
    with connect() as client:
        changed = client.webhooks.change(
            webhook_id, name=name, url=url, kinds=kind or None, format=format, labels=label or None, active=active
        )
    typer.echo(f"{changed.id} {_state(changed)}")


def rotate(
    webhook_id: HookArg,
    overlap: Annotated[float, typer.Option(metavar="HOURS", min=0, max=168, help="how long the old secret signs as well")] = 24,
) -> None:
    """Give a webhook a new secret and print it."""
    with connect() as client:
        typer.echo(client.webhooks.rotate(webhook_id, overlap).secret)


def ping(webhook_id: HookArg) -> None:
    """Try a webhook, and wait for the answer of its receiver."""
    with connect() as client:
        sent = client.webhooks.ping(webhook_id)
        deadline = time.monotonic() + PING_WAIT_S
        while not sent.has_ended and time.monotonic() < deadline:
            time.sleep(POLL_S)
            sent = client.webhooks.delivery(webhook_id, sent.id)
    typer.echo(f"{sent.id} {_outcome(sent)}")
    if sent.status != Status.DELIVERED:
        raise typer.Exit(1)


def deliveries(
    webhook_id: HookArg,
    status: Annotated[Status | None, typer.Option(help="only those with this status")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many, newest first")] = 50,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook, what waits, and what became of it."""
    with connect() as client:
        page = client.webhooks.deliveries(webhook_id, status=status, limit=limit)
    if as_json:
        typer.echo("\n".join(item.model_dump_json() for item in page.items))
        return
    table = Table("id", "time", "kind", "run", "tries", "outcome", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for item in page.items:
        at = item.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(item.id, at, item.kind, item.run_id or "", str(item.tries), _outcome(item))
    out.print(table)


def redeliver(webhook_id: HookArg, delivery_id: DeliveryArg) -> None:
    """Send a delivery that has ended once more."""
    with connect() as client:
        typer.echo(f"{client.webhooks.redeliver(webhook_id, delivery_id).id} will be sent again")


def delete(webhook_id: HookArg) -> None:
    """Delete a webhook for good, with its deliveries."""
    with connect() as client:
        typer.echo(f"{client.webhooks.delete(webhook_id).id} deleted")


def _state(hook: Webhook) -> str:
    if not hook.active:
        return f"off: {hook.off_reason}" if hook.off_reason else "off"
    return f"on, failing: {hook.last_error}" if hook.last_error else "on"


def _outcome(delivery: Delivery) -> str:
    return f"{delivery.status}: {delivery.error}" if delivery.error else delivery.status
