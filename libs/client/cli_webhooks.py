"""The commands for webhooks: webhook make, list, change, rotate, ping, deliveries, redeliver, delete."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Code, Json, Yes, confirm, connect, emit, one_of, say, say_whole, show, tell, warn
from client.cli_group import Group
from client.cli_options import something_to_change
from client.client import Client
from client.sheet import Column, Sheet
from client.text import when
from client.webhooks import Delivery, NewWebhook, Webhook

PING_WAIT_S = 30.0  # a try takes at most 15 s
POLL_S = 0.5

webhook = typer.Typer(
    cls=Group, help="Send the events of runs to other programs. Needs the key of an operator.", no_args_is_help=True
)

HookArg = Annotated[
    str,
    typer.Argument(
        metavar="WEBHOOK",
        help="id of a webhook, h_… (see `nanochat webhook list`), or its name",
        autocompletion=complete.webhooks,
    ),
]
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
    cli_base.register(webhook, "Commands", make, list_, change, rotate, ping, deliveries, redeliver, delete)
    app.add_typer(webhook, name="webhook", rich_help_panel=cli_base.FLEET)


def make(
    url: Annotated[str, typer.Argument(metavar="URL", help="where to POST the events, https://…")],
    name: Annotated[str, typer.Option(help="name of the webhook")],
    kind: KindOption = None,
    format: Annotated[Format, typer.Option(help="form of the body; slack is for Slack's incoming webhooks")] = Format.JSON,
    run: Annotated[
        str | None, typer.Option(help="only events of this run: its id or name", autocompletion=complete.runs)
    ] = None,
    label: LabelOption = None,
    as_json: Json = False,
) -> None:
    """Make a webhook and print its id and its secret. The secret cannot be printed again."""
    with connect() as client:
        made = client.webhooks.make(name, url, kinds=kind or None, format=format, run=run, labels=label or ())
    _secret(made, f"{made.id} {made.secret}", as_json)


def list_(as_json: Json = False) -> None:
    """List the project's webhooks and how they are doing."""
    with connect() as client:
        items = _all(client)
    if as_json:
        emit(items)
        return
    if not items:
        warn("No webhooks yet. Make one: nanochat webhook make URL")
        return
    sheet = Sheet(
        "id",
        Column("name", wrap=True),
        Column("host", drop=2, wrap=True),
        Column("kinds", drop=3, wrap=True),
        Column("waiting", right=True, drop=1),
        Column("state", wrap=True),
    )
    for item in items:
        sheet.add(item.id, item.name, item.origin, ", ".join(item.kinds), str(item.waiting), _state(item))
    show(sheet)


def change(
    webhook_id: HookArg,
    name: Annotated[str | None, typer.Option(help="new name")] = None,
    url: Annotated[str | None, typer.Option(help="new URL")] = None,
    kind: KindOption = None,
    format: Annotated[Format | None, typer.Option(help="new form of the body")] = None,
    label: LabelOption = None,
    active: Annotated[bool | None, typer.Option("--on/--off", help="switch it on or off")] = None,
    as_json: Json = False,
) -> None:
    """Change a webhook, or switch it off or on."""
    something_to_change(name=name, url=url, kind=kind, format=format, label=label, on=active)
    with connect() as client:
        changed = client.webhooks.change(
            _id(client, webhook_id), name=name, url=url, kinds=kind or None, format=format, labels=label or None, active=active
        )
    tell(changed, f"{changed.id} {_state(changed)}", as_json)


def rotate(
    webhook_id: HookArg,
    overlap: Annotated[float, typer.Option(metavar="HOURS", min=0, max=168, help="how long the old secret signs as well")] = 24,
    as_json: Json = False,
) -> None:
    """Give a webhook a new secret and print it."""
    with connect() as client:
        made = client.webhooks.rotate(_id(client, webhook_id), overlap)
    _secret(made, made.secret, as_json)


def ping(webhook_id: HookArg, as_json: Json = False) -> None:
    """Try a webhook, and wait for the answer of its receiver."""
    with connect() as client:
        hook = _id(client, webhook_id)
        sent = client.webhooks.ping(hook)
        deadline = time.monotonic() + PING_WAIT_S
        while not sent.has_ended and time.monotonic() < deadline:
            time.sleep(POLL_S)
            sent = client.webhooks.delivery(hook, sent.id)
    tell(sent, f"{sent.id} {_outcome(sent)}", as_json)
    if sent.status != Status.DELIVERED:
        raise typer.Exit(Code.FAILED)


def deliveries(
    webhook_id: HookArg,
    status: Annotated[Status | None, typer.Option(help="only those with this status")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many, newest first")] = 50,
    as_json: Json = False,
) -> None:
    """List what was sent to a webhook, what waits, and what became of it."""
    with connect() as client:
        page = client.webhooks.deliveries(_id(client, webhook_id), status=status, limit=limit)
    if as_json:
        emit(page)
        return
    if not page.items:
        warn("No deliveries yet.")
        return
    sheet = Sheet(
        "id",
        Column("time", drop=1),
        Column("kind", drop=2),
        Column("run", drop=3),
        Column("tries", right=True, drop=4),
        Column("outcome", wrap=True),
    )
    for item in page.items:
        sheet.add(item.id, when(item.created_at), item.kind, item.run_id or "", str(item.tries), _outcome(item))
    show(sheet)


def redeliver(webhook_id: HookArg, delivery_id: DeliveryArg, as_json: Json = False) -> None:
    """Send a delivery that has ended once more."""
    with connect() as client:
        again = client.webhooks.redeliver(_id(client, webhook_id), delivery_id)
    tell(again, f"{again.id} will be sent again", as_json)


def delete(webhook_id: HookArg, yes: Yes = False) -> None:
    """Delete a webhook for good, with its deliveries."""
    with connect() as client:
        hook = _id(client, webhook_id)
        confirm(f"Delete the webhook {webhook_id} for good?", yes)
        say(f"{client.webhooks.delete(hook).id} deleted")


def _all(client: Client) -> list[Webhook]:
    items, cursor = [], None
    while True:
        page = client.webhooks.page(limit=200, cursor=cursor)
        items += page.items
        if (cursor := page.next_cursor) is None:
            return items


def _id(client: Client, wanted: str) -> str:
    return one_of(_all(client), wanted, "webhook")


def _secret(made: NewWebhook, text: str, as_json: bool) -> None:
    if as_json:
        emit(made)
    else:
        say_whole(text)


def _state(hook: Webhook) -> str:
    if not hook.active:
        return f"off: {hook.off_reason}" if hook.off_reason else "off"
    return f"on, failing: {hook.last_error}" if hook.last_error else "on"


def _outcome(delivery: Delivery) -> str:
    return f"{delivery.status}: {delivery.error}" if delivery.error else delivery.status
