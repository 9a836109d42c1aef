"""Deliveries of webhooks: which are due, what became of a try, trying again by hand, and forgetting old ones.

The sender claims a delivery in one transaction, sends it outside of any, and records the outcome in another. A claim is a time
until which nobody else takes the delivery. If the sender dies, the delivery is claimed again when that time is over: it is sent
at least once, always with the same message id. Of the pending deliveries of one webhook and run, only the oldest is ever due, so
a receiver gets the events of a run in order. A delivery that fails for good lets the next one pass.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, and_, delete, func, select, true, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane import cursors, payloads, webhooks
from controlplane.errors import Conflict, NotFound
from controlplane.loops import seconds
from controlplane.models import new_id
from controlplane.timing import DEFAULT, Timing
from controlplane.webhook_kinds import PING, DeliveryStatus
from controlplane.webhook_models import Webhook, WebhookDelivery
from controlplane.webhook_schemas import DeliveryPage, DeliveryView

CLAIM_S = 60.0  # longer than a try can take
PER_WEBHOOK = 4  # tries at the same time
MOST_PENDING = 10_000  # of a webhook; then it is switched off
LOOKED_AT = 1000  # due deliveries among which one claim chooses
FORGOTTEN = 20_000  # old deliveries that are deleted at once
GONE = 410

_pending = WebhookDelivery.status == DeliveryStatus.PENDING


@dataclass(frozen=True, slots=True)
class Order:
    """A claimed delivery: all that is needed to send it."""

    id: int
    message_id: str
    webhook_id: str
    try_no: int
    url: str
    body: str
    nonce: str
    secret_digest: str
    old_nonce: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a try. `status` is None without an answer; `error` is empty for success."""

    status: int | None
    error: str
    retry_after: float | None = None  # seconds that the receiver asked for


def claim(session: Session, busy: Mapping[str, int], free: int) -> list[Order]:
    """Claim at most `free` due deliveries. `busy` says how many tries each webhook has under way. One process at a time."""
    now = func.clock_timestamp()
    heads = (
        select(WebhookDelivery.id, WebhookDelivery.webhook_id, WebhookDelivery.next_try_at)
        .ext(distinct_on(WebhookDelivery.webhook_id, WebhookDelivery.run_id))
        .join(Webhook, and_(Webhook.id == WebhookDelivery.webhook_id, Webhook.active))
        .where(_pending)
        .order_by(WebhookDelivery.webhook_id, WebhookDelivery.run_id, WebhookDelivery.id)
        .subquery()
    )
    turn = func.row_number().over(partition_by=heads.c.webhook_id, order_by=[heads.c.next_try_at, heads.c.id]).label("turn")
    due = select(heads.c.id, heads.c.webhook_id, turn).where(heads.c.next_try_at <= now).subquery()
    # One of each webhook before a second one of any, so that a busy webhook takes no one's turn.
    looked_at = select(due.c.id, due.c.webhook_id).where(due.c.turn <= PER_WEBHOOK).order_by(due.c.turn, due.c.id)
    taken, chosen = Counter(busy), list[int]()
    for delivery_id, webhook_id in session.execute(looked_at.limit(LOOKED_AT)):
        if len(chosen) < free and taken[webhook_id] < PER_WEBHOOK:
            taken[webhook_id] += 1
            chosen.append(delivery_id)
    if not chosen:
        return []
    claimed = session.scalars(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(chosen), _pending, WebhookDelivery.next_try_at <= now)
        .values(tries=WebhookDelivery.tries + 1, last_try_at=now, next_try_at=now + seconds(CLAIM_S))
        .returning(WebhookDelivery)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).all()
    old = and_(Webhook.old_until > now, Webhook.old_nonce.is_not(None))
    query = select(Webhook, old).where(Webhook.id.in_({d.webhook_id for d in claimed}))
    hooks = {hook.id: (hook, bool(both)) for hook, both in session.execute(query)}
    return [_order(d, *hooks[d.webhook_id]) for d in sorted(claimed, key=lambda d: d.id)]


def record(session: Session, order: Order, outcome: Outcome, *, timing: Timing = DEFAULT) -> None:
    """Record the outcome of a try. Without effect if the delivery has ended, was deleted, or was claimed again after a failure."""
    row = session.get(WebhookDelivery, order.id, populate_existing=True)
    hook = session.get(Webhook, order.webhook_id, populate_existing=True)
    now = session.scalar(select(func.clock_timestamp()))
    if row is None or hook is None or now is None:
        return
    failed = bool(outcome.error)
    if failed and row.tries == order.try_no and (reason := _off_reason(hook, row, outcome, now, timing)):
        webhooks.switch_off(session, hook.id, row.run_id, reason)
    values: dict[str, object] = {"response_status": outcome.status, "error": outcome.error}
    if not failed:
        values |= {"status": DeliveryStatus.DELIVERED, "finished_at": now}
    elif _is_over(row, outcome, now, timing):
        values |= {"status": DeliveryStatus.FAILED, "finished_at": now}
    else:
        values["next_try_at"] = now + timedelta(seconds=_delay(row.tries, outcome, timing))
    # The webhook before the delivery, as `switch_off` does: two processes cannot wait for each other.
    session.refresh(hook, with_for_update={"key_share": True})
    is_mine = WebhookDelivery.tries == order.try_no if failed else true()
    written = update(WebhookDelivery).where(WebhookDelivery.id == order.id, _pending, is_mine).values(**values)
    if session.scalar(written.returning(WebhookDelivery.id).execution_options(synchronize_session=False)) is None:
        return
    hook.failing_since = (hook.failing_since or now) if failed else None
    hook.last_try_at, hook.last_status, hook.last_error = now, outcome.status, outcome.error
    session.flush()


def ping(session: Session, project: str, hook_id: str) -> DeliveryView:
    """Make a delivery that only tries the webhook. Raises NotFound, and Conflict if it is off or another ping is under way."""
    hook = _switched_on(session, project, hook_id)
    waits = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == hook_id, WebhookDelivery.kind == PING, _pending)
    if session.scalar(waits.limit(1)) is not None:
        raise Conflict(f"a ping of webhook {hook_id} is under way; look at its deliveries")
    body = payloads.ping(hook.format, project, hook_id)
    row = WebhookDelivery(message_id=new_id("msg"), webhook_id=hook_id, event_id=None, run_id="", kind=PING, body=body)
    session.add(row)
    session.flush()
    session.refresh(row)
    return _view(row)


def redeliver(session: Session, project: str, hook_id: str, message_id: str) -> DeliveryView:
    """Send a delivery that has ended once more, with the same id and body. Raises NotFound, and Conflict."""
    _switched_on(session, project, hook_id)
    row = _find(session, hook_id, message_id)
    if row.status is DeliveryStatus.PENDING:
        raise Conflict(f"delivery {message_id} has not ended yet; it will be tried by itself")
    row.status, row.tries, row.finished_at = DeliveryStatus.PENDING, 0, None
    row.next_try_at = row.queued_at = func.clock_timestamp()
    session.flush()
    session.refresh(row)
    return _view(row)


def get(session: Session, project: str, hook_id: str, message_id: str) -> DeliveryView:
    """One delivery. Raises NotFound."""
    webhooks.find(session, project, hook_id)
    return _view(_find(session, hook_id, message_id))


def page(
    session: Session,
    project: str,
    hook_id: str,
    *,
    status: DeliveryStatus | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> DeliveryPage:
    """A page of a webhook's deliveries, newest first. Raises NotFound, BadCursor."""
    webhooks.find(session, project, hook_id)
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    identity = ("deliveries", hook_id, status)
    if cursor is not None:
        (last,) = cursors.decode(identity, cursor)
        query = query.where(WebhookDelivery.id < int(str(last)))
    rows = session.scalars(query.order_by(WebhookDelivery.id.desc()).limit(limit + 1)).all()
    more = cursors.encode(identity, [str(rows[limit - 1].id)]) if len(rows) > limit else None
    return DeliveryPage(items=[_view(row) for row in rows[:limit]], next_cursor=more)


def tidy(session: Session, *, timing: Timing = DEFAULT) -> None:
    """End pending deliveries that are too old, switch off webhooks with too many, and delete old deliveries. Once a minute."""
    now = func.clock_timestamp()
    for hook_id, run_id in session.execute(_overflowing()).all():
        reason = f"{MOST_PENDING:,} deliveries were waiting; the receiver is too slow for the kinds that it asks for"
        webhooks.switch_off(session, hook_id, run_id, reason)
    too_old = and_(_pending, WebhookDelivery.queued_at < now - seconds(timing.webhook_max_age))
    over = {"status": DeliveryStatus.FAILED, "finished_at": now, "error": "it waited too long; ask for it again by hand"}
    once = {"synchronize_session": False}
    session.execute(
        update(WebhookDelivery).where(too_old, WebhookDelivery.next_try_at < now).values(over), execution_options=once
    )
    old = select(WebhookDelivery.id).where(WebhookDelivery.finished_at < now - seconds(timing.webhook_kept)).limit(FORGOTTEN)
    session.execute(delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)), execution_options=once)


def _overflowing() -> Select[str, str]:
    return (
        select(WebhookDelivery.webhook_id, func.max(WebhookDelivery.run_id).label("run_id"))
        .join(Webhook, and_(Webhook.id == WebhookDelivery.webhook_id, Webhook.active))
        .where(_pending)
        .group_by(WebhookDelivery.webhook_id)
        .having(func.count() > MOST_PENDING)
    )


def _order(row: WebhookDelivery, hook: Webhook, both: bool) -> Order:
    return Order(
        id=row.id,
        message_id=row.message_id,
        webhook_id=hook.id,
        try_no=row.tries,
        url=hook.url,
        body=row.body,
        nonce=hook.nonce,
        secret_digest=hook.secret_digest,
        old_nonce=hook.old_nonce if both else None,
    )


def _off_reason(hook: Webhook, row: WebhookDelivery, outcome: Outcome, now: datetime, timing: Timing) -> str:
    """Why the webhook is to be switched off after a failure; empty if it is not."""
    if outcome.status == GONE:
        return "the receiver answered 410 Gone"
    since = hook.failing_since
    if row.kind != PING and since is not None and (now - since).total_seconds() > timing.webhook_off_after:
        return f"every try since {since:%Y-%m-%d %H:%M} UTC failed; the last one: {outcome.error}"
    return ""


def _is_over(row: WebhookDelivery, outcome: Outcome, now: datetime, timing: Timing) -> bool:
    age = (now - row.queued_at).total_seconds()
    tried = row.kind == PING or row.tries >= timing.webhook_tries
    return tried or outcome.status == GONE or age > timing.webhook_max_age


def _delay(tries: int, outcome: Outcome, timing: Timing) -> float:
    """With jitter of a half, so that the deliveries which failed in one outage do not all come back at once."""
    delay = timing.webhook_delay(tries) * random.uniform(1.0, 1.5)
    return max(delay, min(outcome.retry_after or 0.0, max(timing.webhook_backoff)))


def _switched_on(session: Session, project: str, hook_id: str) -> Webhook:
    hook = webhooks.find(session, project, hook_id, lock=True)
    if not hook.active:
        raise Conflict(f"webhook {hook_id} is switched off; switch it on first")
    return hook


def _find(session: Session, hook_id: str, message_id: str) -> WebhookDelivery:
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook_id, WebhookDelivery.message_id == message_id)
    row = session.scalars(query).first()
    if row is None:
        raise NotFound(f"webhook {hook_id} has no delivery {message_id!r}; deliveries are kept for a week")
    return row


def _view(row: WebhookDelivery) -> DeliveryView:
    return DeliveryView(
        id=row.message_id,
        kind=row.kind,
        run_id=row.run_id or None,
        event_id=row.event_id,
        status=row.status,
        tries=row.tries,
        created_at=row.created_at,
        last_try_at=row.last_try_at,
        next_try_at=row.next_try_at if row.status is DeliveryStatus.PENDING else None,
        finished_at=row.finished_at,
        response_status=row.response_status,
        error=row.error,
        body=row.body,
    )
