"""Read models of webhooks and their deliveries, in the shape in which the HTTP API answers them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from controlplane.schemas import CreatedAt
from controlplane.webhook_kinds import DeliveryStatus, EventKind, Format


class WebhookView(BaseModel):
    """A webhook, without its secret and without the path of its URL, which may be a secret as well."""

    id: str = Field(description="The webhook's id: `h_` and 16 hex digits.")
    name: str = Field(description="Its name, for people.")
    owner: str = Field(description="Id of the API key that made it.")
    origin: str = Field(description="Scheme, host and port of its URL.")
    format: Format = Field(description="Form of the body: `json`, or `slack` for Slack's incoming webhooks.")
    kinds: list[EventKind] = Field(description="The kinds of event that it gets.")
    run_id: str | None = Field(description="The run whose events it gets; null for all runs of the project.")
    labels: list[str] = Field(description="It gets the events of runs that have all of these labels.")
    active: bool = Field(description="Whether events are delivered.")
    off_reason: str = Field(description="Why the platform switched it off; empty if it did not.")
    old_secret_until: datetime | None = Field(description="Until when the secret before the present one signs as well.")
    created_at: CreatedAt
    failing_since: datetime | None = Field(description="The first failure since the last success; null after a success.")
    last_try_at: datetime | None = Field(description="When a delivery was last tried.")
    last_status: int | None = Field(description="HTTP status of the last try; null if there was no answer.")
    last_error: str = Field(description="Why the last try failed; empty if it succeeded.")
    waiting: int = Field(description="Deliveries that have not ended.")


class WebhookPage(BaseModel):
    """A page of webhooks."""

    items: list[WebhookView] = Field(description="Webhooks, newest first.")
    next_cursor: str | None = Field(description="Pass this as `cursor` to get the next page; null on the last one.")


class DeliveryView(BaseModel):
    """One event for one webhook."""

    id: str = Field(description="The header `webhook-id` of every try: `msg_` and 16 hex digits.")
    kind: str = Field(description="Kind of the event, or `ping`.")
    run_id: str | None = Field(description="The run of the event; null for a ping.")
    event_id: int | None = Field(description="Id of the event, as in the run's list of events; null for a ping.")
    status: DeliveryStatus = Field(description="What became of it.")
    tries: int = Field(description="How often it was tried, since it was last asked for.")
    created_at: CreatedAt
    last_try_at: datetime | None = Field(description="When it was last tried.")
    next_try_at: datetime | None = Field(description="When it is tried next, at the earliest; null when it has ended.")
    finished_at: datetime | None = Field(description="When it was delivered or given up; null before.")
    response_status: int | None = Field(description="HTTP status of the last answer; null if there was none.")
    error: str = Field(description="Why the last try failed; empty if it succeeded.")
    body: str = Field(description="The body that is sent.")


class DeliveryPage(BaseModel):
    """A page of deliveries."""

    items: list[DeliveryView] = Field(description="Deliveries, newest first.")
    next_cursor: str | None = Field(description="Pass this as `cursor` to get the next page; null on the last one.")
