"""The ledger's tables of webhooks. `models` has all others."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Identity, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from controlplane.models import Base, Word, new_id
from controlplane.webhook_kinds import DeliveryStatus, Format


class Webhook(Base):
    """A receiver of a project's events. Its secret is not stored: it is derived from `nonce` and a key file of the API."""

    __tablename__ = "webhook"
    __table_args__ = (Index("ix_webhook_project_created_at_id", "project", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("h"))
    project: Mapped[str]
    owner: Mapped[str]  # id of the API key that made it
    name: Mapped[str]
    url: Mapped[str]
    format: Mapped[Format] = mapped_column(Word(Format))
    kinds: Mapped[list[str]]
    run_id: Mapped[str | None]  # only events of this run
    labels: Mapped[list[str]]  # only events of runs that have all of these
    nonce: Mapped[str]
    secret_digest: Mapped[str]  # SHA-256, to notice that the key file is another one
    old_nonce: Mapped[str | None]  # of the secret before, which signs as well until `old_until`
    old_until: Mapped[datetime | None]
    active: Mapped[bool] = mapped_column(default=True)
    off_reason: Mapped[str] = mapped_column(default="")  # why the platform switched it off
    after_event: Mapped[int]  # greatest event id when it was made or switched on: later events are delivered
    failing_since: Mapped[datetime | None]  # first failure after the last success
    last_try_at: Mapped[datetime | None]
    last_status: Mapped[int | None]  # HTTP status of the last try; null if there was no answer
    last_error: Mapped[str] = mapped_column(default="")  # empty after a success
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Base):
    """One event for one webhook: the outbox. The body is fixed when the row is made, so every try sends the same bytes."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_webhook_delivery_webhook_id_id", "webhook_id", "id"),
        Index("ix_webhook_delivery_finished_at", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("ix_webhook_delivery_pending", "webhook_id", "run_id", "id", postgresql_where=text("status = 'PENDING'")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    message_id: Mapped[str] = mapped_column(unique=True)  # what the receiver sees, the same in every try
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhook.id", ondelete="CASCADE"))
    event_id: Mapped[int | None]  # no foreign key: events may be deleted sooner. Null for a ping
    run_id: Mapped[str]  # empty for a ping
    kind: Mapped[str]
    body: Mapped[str]
    status: Mapped[DeliveryStatus] = mapped_column(Word(DeliveryStatus), default=DeliveryStatus.PENDING)
    tries: Mapped[int] = mapped_column(default=0)
    next_try_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())  # or when it was asked for again
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    last_try_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    response_status: Mapped[int | None]
    error: Mapped[str] = mapped_column(default="")


class EventFeed(Base):
    """How far a reader of all runs' events has come. `outbox` explains the mark."""

    __tablename__ = "event_feed"

    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]  # every event up to this id has been read
    mark: Mapped[int]
    mark_xid: Mapped[int]
