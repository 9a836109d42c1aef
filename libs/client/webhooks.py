"""Webhooks of the control API, as typed Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from client.answers import part, read
from client.transport import Transport


class Webhook(BaseModel):
    """A webhook, without its secret. Of its URL only the origin is shown."""

    id: str
    name: str
    origin: str
    format: str
    kinds: list[str]
    run_id: str | None
    labels: list[str]
    active: bool
    off_reason: str
    created_at: datetime
    failing_since: datetime | None
    last_try_at: datetime | None
    last_status: int | None
    last_error: str
    waiting: int


class NewWebhook(Webhook):
    """A webhook with its new secret, which is shown only once."""

    secret: str


class Delivery(BaseModel):
    """One event for one webhook."""

    id: str
    kind: str
    run_id: str | None
    status: str
    tries: int
    created_at: datetime
    next_try_at: datetime | None
    response_status: int | None
    error: str
    body: str

    @property
    def has_ended(self) -> bool:
        return self.status != "PENDING"


class WebhookPage(BaseModel):
    items: list[Webhook]
    next_cursor: str | None


class DeliveryPage(BaseModel):
    items: list[Delivery]
    next_cursor: str | None


class Webhooks:
    """`Client.webhooks`. For keys of operators. Every method raises as those of Client do."""

    def __init__(self, http: Transport):
        self._http = http

    def make(
        self,
        name: str,
        url: str,
        *,
        kinds: Sequence[str] | None = None,
        format: str = "json",
        run: str | None = None,
        labels: Sequence[str] = (),
    ) -> NewWebhook:
        """Make a webhook for the events from now on. Its secret cannot be shown again."""
        body: dict[str, Any] = {"name": name, "url": url, "format": format, "run": run, "labels": list(labels)}
        if kinds is not None:
            body["kinds"] = list(kinds)
        return read(NewWebhook, self._http.post("/v1/webhooks", body))

    def page(self, *, limit: int | None = None, cursor: str | None = None) -> WebhookPage:
        """The project's webhooks, newest first."""
        return read(WebhookPage, self._http.get("/v1/webhooks", limit=limit, cursor=cursor))

    def change(self, webhook_id: str, **changes: Any) -> Webhook:
        """Change `name`, `url`, `kinds`, `format`, `labels` or `active`; None leaves a value as it is."""
        body = {name: value for name, value in changes.items() if value is not None}
        return read(Webhook, self._http.patch(f"/v1/webhooks/{part(webhook_id)}", body))

    def delete(self, webhook_id: str) -> Webhook:
        """Delete a webhook for good, with its deliveries."""
        return read(Webhook, self._http.request("DELETE", f"/v1/webhooks/{part(webhook_id)}", repeatable=False))

    def rotate(self, webhook_id: str, overlap_hours: float = 24) -> NewWebhook:
        """Give a webhook a new secret. The old one signs as well for some hours."""
        return read(NewWebhook, self._http.post(f"/v1/webhooks/{part(webhook_id)}/rotate", {"overlap_hours": overlap_hours}))

    def ping(self, webhook_id: str) -> Delivery:
        """Send a delivery that only tries the webhook. `delivery` tells what became of it."""
        return read(Delivery, self._http.post(f"/v1/webhooks/{part(webhook_id)}/ping"))

    def deliveries(
        self, webhook_id: str, *, status: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> DeliveryPage:
        """The deliveries of a webhook, newest first."""
        page = self._http.get(f"/v1/webhooks/{part(webhook_id)}/deliveries", status=status, limit=limit, cursor=cursor)
        return read(DeliveryPage, page)

    def delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        return read(Delivery, self._http.get(f"/v1/webhooks/{part(webhook_id)}/deliveries/{part(delivery_id)}"))

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery that has ended once more."""
        return read(Delivery, self._http.post(f"/v1/webhooks/{part(webhook_id)}/deliveries/{part(delivery_id)}/redeliver"))
