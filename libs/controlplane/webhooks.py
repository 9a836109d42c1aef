"""Webhooks of a project: make, list, change, rotate the secret, switch off, delete. `outbox` and `deliveries` do the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from controlplane import cursors
from controlplane.errors import Conflict, NotFound
from controlplane.outbox import newest_event_id
from controlplane.transitions import gate
from controlplane.webhook_kinds import DeliveryStatus, EventKind, Format
from controlplane.webhook_models import Webhook, WebhookDelivery
from controlplane.webhook_schemas import WebhookPage, WebhookView

MOST = 50  # webhooks of a project
LOCK = 0x686F6F6B  # "hook" in ASCII, the first number of the advisory lock


def create(
    session: Session,
    *,
    project: str,
    owner: str,
    name: str,
    url: str,
    format: Format,
    kinds: Sequence[EventKind],
    run_id: str | None,
    labels: Sequence[str],
    nonce: str,
    secret_digest: str,
) -> Webhook:
    """Make a webhook for the events from now on. Raises Conflict if the project has too many."""
    session.execute(select(func.pg_advisory_xact_lock(LOCK, func.hashtext(project))))
    if (session.scalar(select(func.count()).where(Webhook.project == project)) or 0) >= MOST:
        raise Conflict(f"project {project} has {MOST} webhooks, which is the most; delete one first")
    hook = Webhook(
        project=project,
        owner=owner,
        name=name,
        url=url,
        format=format,
        kinds=sorted(set(kinds)),
        run_id=run_id,
        labels=sorted(set(labels)),
        nonce=nonce,
        secret_digest=secret_digest,
        after_event=newest_event_id(session),
    )
    session.add(hook)
    session.flush()
    session.refresh(hook)
    return hook


def page(session: Session, project: str, *, limit: int = 50, cursor: str | None = None) -> WebhookPage:
    """A page of the project's webhooks, newest first. Raises BadCursor."""
    query = select(Webhook).where(Webhook.project == project)
    identity = ("webhooks", project)
    if cursor is not None:
        at, hook_id = cursors.decode(identity, cursor)
        query = query.where(tuple_(Webhook.created_at, Webhook.id) < tuple_(datetime.fromisoformat(str(at)), hook_id))
    rows = session.scalars(query.order_by(Webhook.created_at.desc(), Webhook.id.desc()).limit(limit + 1)).all()
    shown = rows[:limit]
    waiting = waiting_counts(session, [hook.id for hook in shown])
    more = cursors.encode(identity, [shown[-1].created_at.isoformat(), shown[-1].id]) if len(rows) > limit else None
    return WebhookPage(items=[_view(hook, waiting.get(hook.id, 0)) for hook in shown], next_cursor=more)


def view(session: Session, hook: Webhook) -> WebhookView:
    return _view(hook, waiting_counts(session, [hook.id]).get(hook.id, 0))


def find(session: Session, project: str, hook_id: str, *, lock: bool = False) -> Webhook:
    """The project's webhook with this id. Raises NotFound."""
    query = select(Webhook).where(Webhook.id == hook_id, Webhook.project == project)
    if lock:
        query = query.with_for_update(key_share=True)
    hook = session.scalars(query.execution_options(populate_existing=True)).first()
    if hook is None:
        raise NotFound(f"there is no webhook {hook_id!r}")
    return hook


def change(session: Session, project: str, hook_id: str, changes: Mapping[str, Any]) -> Webhook:
    """Set columns of a webhook. Switching it on again forgets its failures, and delivers the events from now on."""
    hook = find(session, project, hook_id, lock=True)
    if changes.get("active") and not hook.active:
        hook.off_reason, hook.failing_since, hook.after_event = "", None, newest_event_id(session)
    for name, value in changes.items():
        setattr(hook, name, value)
    session.flush()
    return hook


def rotate(session: Session, project: str, hook_id: str, *, nonce: str, secret_digest: str, overlap_h: float) -> Webhook:
    """Give a webhook a new secret. The one before signs as well for some hours."""
    hook = find(session, project, hook_id, lock=True)
    now = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    hook.old_nonce, hook.old_until = (hook.nonce, now + timedelta(hours=overlap_h)) if overlap_h else (None, None)
    hook.nonce, hook.secret_digest = nonce, secret_digest
    session.flush()
    return hook


def delete(session: Session, project: str, hook_id: str) -> WebhookView:
    """Delete a webhook with its deliveries. Returns the last that is seen of it. Raises NotFound."""
    hook = find(session, project, hook_id, lock=True)
    last = view(session, hook)
    session.delete(hook)
    session.flush()
    return last


def switch_off(session: Session, hook_id: str, run_id: str, reason: str) -> None:
    """Switch a webhook off, with an event on the run whose delivery showed the reason. Switching it off again has no effect."""
    if not run_id:  # a ping belongs to no run
        _switch_off(session, hook_id, reason)
        return
    with gate(session, run_id) as g:  # before the webhook, as `transitions` orders the locks
        name = _switch_off(session, hook_id, reason)
        if name is not None:
            g.note(EventKind.WEBHOOK_OFF, None, {"webhook": hook_id, "name": name, "message": reason})


def _switch_off(session: Session, hook_id: str, reason: str) -> str | None:
    """The webhook's name if it was on."""
    off = update(Webhook).where(Webhook.id == hook_id, Webhook.active).values(active=False, off_reason=reason)
    return session.scalar(off.returning(Webhook.name).execution_options(synchronize_session=False))


def waiting_counts(session: Session, hook_ids: Sequence[str]) -> dict[str, int]:
    """How many deliveries of each webhook are pending."""
    pending = (WebhookDelivery.webhook_id.in_(hook_ids), WebhookDelivery.status == DeliveryStatus.PENDING)
    query = select(WebhookDelivery.webhook_id, func.count()).where(*pending).group_by(WebhookDelivery.webhook_id)
    return {row[0]: row[1] for row in session.execute(query)}


def _view(hook: Webhook, waiting: int) -> WebhookView:
    scheme, _, rest = hook.url.partition("://")
    origin = f"{scheme}://{rest.partition('/')[0].partition('?')[0]}"
    return WebhookView(
        id=hook.id,
        name=hook.name,
        owner=hook.owner,
        origin=origin,
        format=hook.format,
        kinds=[EventKind(kind) for kind in hook.kinds],
        run_id=hook.run_id,
        labels=hook.labels,
        active=hook.active,
        off_reason=hook.off_reason,
        old_secret_until=hook.old_until,
        created_at=hook.created_at,
        failing_since=hook.failing_since,
        last_try_at=hook.last_try_at,
        last_status=hook.last_status,
        last_error=hook.last_error,
        waiting=waiting,
    )
