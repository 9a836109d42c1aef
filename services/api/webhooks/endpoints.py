"""Webhooks: receivers of a project's events, and what was delivered to them. For operators, because a URL may be a secret."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator

from controlplane import access, deliveries, webhooks
from controlplane.webhook_kinds import DeliveryStatus, EventKind, Format
from controlplane.webhook_schemas import DeliveryPage, DeliveryView, WebhookPage, WebhookView
from services.api.auth import Operator
from services.api.database import Ledger
from services.api.fields import check_text
from services.api.problems import ProblemError, responses
from services.api.runs.schemas import Label, RunName
from services.api.webhooks.addresses import LONGEST_URL, BadUrl, parse
from services.api.webhooks.sender import Busy, Sender
from services.api.webhooks.signing import NewSecret, Secrets

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

REFUSED_BODY = ("forbidden", "malformed-body", "body-too-large", "invalid-request")
MOST_LABELS = 20
MOST_OVERLAP_H = 168

HookId = Annotated[str, Path(pattern=r"^h_[0-9a-f]{16}$", description="Id of the webhook.")]
DeliveryId = Annotated[str, Path(pattern=r"^msg_[0-9a-f]{16}$", description="Id of the delivery: its `webhook-id`.")]


def _parsed(url: str) -> str:
    try:
        parse(url)
    except BadUrl as err:
        raise ValueError(str(err)) from None
    return url


Url = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL), AfterValidator(_parsed)]
Kinds = Annotated[list[EventKind], Field(min_length=1, max_length=100)]
Labels = Annotated[list[Label], Field(max_length=MOST_LABELS)]


class WebhookRequest(BaseModel):
    """A webhook to make."""

    model_config = ConfigDict(extra="forbid")

    name: RunName = Field(description="Its name, for people.", examples=["alerts of the team"])
    url: Url = Field(
        description="Where to POST the events. It begins with https:// and belongs to a host on the internet, or to a network that "
        "an operator of the platform has allowed. It is not shown again: only its origin is.",
        examples=["https://example.com/hook"],
    )
    format: Format = Field(
        default=Format.JSON, description="Form of the body: `json`, or `slack` for Slack's incoming webhooks."
    )
    kinds: Kinds = Field(default=[EventKind.RUN_STATUS], description="The kinds of event to deliver.")
    run: Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(check_text)] | None = Field(
        default=None, description="Id or name of the run whose events to deliver; null for all runs of the project."
    )
    labels: Labels = Field(default=[], description="Deliver only events of runs that have all of these labels.")


class WebhookChange(BaseModel):
    """What to change. A field that is left out or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    name: RunName | None = Field(default=None, description="Its name, for people.")
    url: Url | None = Field(default=None, description="Where to POST the events, from now on and what is waiting.")
    format: Format | None = Field(default=None, description="Form of the bodies of later events.")
    kinds: Kinds | None = Field(default=None, description="The kinds of later events to deliver.")
    labels: Labels | None = Field(default=None, description="Deliver only later events of runs that have all of these labels.")
    active: bool | None = Field(
        default=None,
        strict=True,
        description="false: deliver nothing. true: deliver what waits and the events from now on; those in between are not delivered.",
    )


class RotateRequest(BaseModel):
    """How to rotate a secret."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: float = Field(
        default=24,
        ge=0,
        le=MOST_OVERLAP_H,
        allow_inf_nan=False,
        description="For so long, deliveries carry a signature of the old secret as well, so that the receiver can be changed meanwhile.",
    )

    @field_validator("overlap_hours", mode="before")
    @classmethod
    def _is_number(cls, value: object) -> object:
        if isinstance(value, bool | str):
            raise ValueError("must be a number of hours")
        return value


class PageQuery(BaseModel):
    """Which page of a list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(default=50, ge=1, le=200, description="Maximum number of items on a page.")
    cursor: str | None = Field(default=None, max_length=1000, description="`next_cursor` of the previous page.")


class DeliveryQuery(PageQuery):
    """Which deliveries."""

    status: DeliveryStatus | None = Field(default=None, description="Return only deliveries with this status.")


class NewWebhookView(WebhookView):
    """A webhook with its new secret."""

    secret: str = Field(description="`whsec_` and the key of the signatures in base64. It is shown only this once.")


def _sender(request: Request) -> Sender:
    sender: Sender = request.app.state.webhook_sender
    return sender


def _secrets(request: Request) -> Secrets:
    made: Secrets = request.app.state.webhook_secrets
    return made


Sending = Annotated[Sender, Depends(_sender)]
Signing = Annotated[Secrets, Depends(_secrets)]


@router.post("", status_code=201, responses=responses(*REFUSED_BODY, "run-not-found", "conflict"))
def make_webhook(
    request: Request, caller: Operator, ledger: Ledger, sender: Sending, secrets: Signing, body: WebhookRequest
) -> NewWebhookView:
    """Make a webhook for the events from now on. The answer is the only one that has its secret. 409 if the project has 50."""
    _reachable(sender, body.url)
    new = secrets.new()
    with ledger.begin() as session:
        hook = webhooks.create(
            session,
            project=caller.project,
            owner=caller.id,
            run_id=None if body.run is None else access.run_id(session, caller.project, body.run),
            nonce=new.nonce,
            secret_digest=new.digest,
            **body.model_dump(exclude={"run"}),
        )
        view = webhooks.view(session, hook)
    request.state.made = view.id
    return _shown(view, new)


@router.get("", responses=responses("forbidden", "invalid-request", "bad-cursor"))
def list_webhooks(caller: Operator, ledger: Ledger, query: Annotated[PageQuery, Query()]) -> WebhookPage:
    """List the project's webhooks, newest first."""
    with ledger() as session:
        return webhooks.page(session, caller.project, limit=query.limit, cursor=query.cursor)


@router.get("/{webhook_id}", responses=responses("forbidden", "webhook-not-found", "invalid-request"))
def get_webhook(caller: Operator, ledger: Ledger, webhook_id: HookId) -> WebhookView:
    """Get one webhook."""
    with ledger() as session:
        return webhooks.view(session, webhooks.find(session, caller.project, webhook_id))


@router.patch("/{webhook_id}", responses=responses(*REFUSED_BODY, "webhook-not-found"))
def change_webhook(caller: Operator, ledger: Ledger, sender: Sending, webhook_id: HookId, body: WebhookChange) -> WebhookView:
    """Change a webhook, or switch it off or on."""
    if body.url is not None:
        _reachable(sender, body.url)
    changes: dict[str, Any] = body.model_dump(exclude_none=True)
    with ledger.begin() as session:
        return webhooks.view(session, webhooks.change(session, caller.project, webhook_id, changes))


@router.delete("/{webhook_id}", responses=responses("forbidden", "webhook-not-found", "invalid-request"))
def delete_webhook(caller: Operator, ledger: Ledger, webhook_id: HookId) -> WebhookView:
    """Delete a webhook for good, with its deliveries. The answer is the last that is seen of it."""
    with ledger.begin() as session:
        return webhooks.delete(session, caller.project, webhook_id)


@router.post("/{webhook_id}/rotate", responses=responses(*REFUSED_BODY, "webhook-not-found"))
def rotate_webhook(
    caller: Operator, ledger: Ledger, secrets: Signing, webhook_id: HookId, body: RotateRequest
) -> NewWebhookView:
    """Give a webhook a new secret. The answer is the only one that has it."""
    new = secrets.new()
    with ledger.begin() as session:
        hook = webhooks.rotate(
            session,
            caller.project,
            webhook_id,
            nonce=new.nonce,
            secret_digest=new.digest,
            overlap_h=body.overlap_hours,
        )
        return _shown(webhooks.view(session, hook), new)


@router.post(
    "/{webhook_id}/ping", status_code=202, responses=responses("forbidden", "webhook-not-found", "conflict", "invalid-request")
)
def ping_webhook(caller: Operator, ledger: Ledger, webhook_id: HookId) -> DeliveryView:
    """Send a delivery of the kind `ping`, once. 409 while the webhook is off or another ping is under way."""
    with ledger.begin() as session:
        return deliveries.ping(session, caller.project, webhook_id)


@router.get("/{webhook_id}/deliveries", responses=responses("forbidden", "webhook-not-found", "invalid-request", "bad-cursor"))
def list_deliveries(
    caller: Operator, ledger: Ledger, webhook_id: HookId, query: Annotated[DeliveryQuery, Query()]
) -> DeliveryPage:
    """List the deliveries of a webhook, newest first. They are kept for a week after their end."""
    with ledger() as session:
        return deliveries.page(session, caller.project, webhook_id, **query.model_dump())


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=responses("forbidden", "webhook-not-found", "invalid-request"))
def get_delivery(caller: Operator, ledger: Ledger, webhook_id: HookId, delivery_id: DeliveryId) -> DeliveryView:
    """Get one delivery."""
    with ledger() as session:
        return deliveries.get(session, caller.project, webhook_id, delivery_id)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=responses("forbidden", "webhook-not-found", "conflict", "invalid-request"),
)
def redeliver(caller: Operator, ledger: Ledger, webhook_id: HookId, delivery_id: DeliveryId) -> DeliveryView:
    """Send a delivery that has ended once more, with the same id and body. 409 while it has not ended or the webhook is off."""
    with ledger.begin() as session:
        return deliveries.redeliver(session, caller.project, webhook_id, delivery_id)


def _reachable(sender: Sender, url: str) -> None:
    try:
        sender.check(url)
    except BadUrl as err:
        raise ProblemError("invalid-request", f"the URL {err}", [("url", str(err))]) from None
    except Busy:
        again = {"Retry-After": "1"}
        raise ProblemError("too-many-requests", "too many URLs are being checked; try again", headers=again) from None


def _shown(view: WebhookView, new: NewSecret) -> NewWebhookView:
    return NewWebhookView(**view.model_dump(), secret=new.secret)
