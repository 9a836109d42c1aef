"""The outbox of webhooks: each event becomes one delivery per webhook that asks for it, in the order of the event ids.

Event ids follow commit order within a run, but not between runs: a transaction may commit an event with a smaller id after a
reader has seen a greater one. So the reader passes an id only when it is settled. It notes the newest id of the sequence (the
mark), and after that takes a transaction id for itself. When every transaction before that one has ended, no event up to the
mark can still appear, because whoever writes an event has locked or inserted the run first, and so had a transaction id before
it drew the event's id. (A snapshot's xmax would not do: it follows the last transaction that ended, so open ones may lie past
it.) An open transaction of any database of the server that has written something therefore delays deliveries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane import payloads
from controlplane.models import Attempt, Event, Run, Stage, new_id
from controlplane.webhook_models import EventFeed, Webhook, WebhookDelivery

FEED = "webhooks"
BATCH = 500  # events in one transaction
SPAN = 100_000  # ids that one query looks through; metrics are most of them

_NEWEST = text("SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('event', 'id')::regclass), 0)")
_OLDEST = text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
_OWN = text("SELECT pg_current_xact_id()::text::bigint")


@dataclass(frozen=True, slots=True)
class Horizon:
    """The newest event id, and then the transactions: all before `oldest` have ended, those after `next` had not begun."""

    newest: int
    oldest: int
    next: int


def horizon(session: Session) -> Horizon:
    """Look where the events are settled. Call it in a transaction of its own that has written nothing: it would wait for itself."""
    newest = newest_event_id(session)  # the order of these three matters
    oldest = session.scalars(_OLDEST).one()
    return Horizon(newest, oldest, session.scalars(_OWN).one())


def newest_event_id(session: Session) -> int:
    """The greatest id that an event has been given, also by a transaction that has not committed."""
    return int(session.scalar(_NEWEST) or 0)


def advance(session: Session, seen: Horizon) -> tuple[int, bool]:
    """Make the deliveries of the settled events. Returns how many were made, and whether more events are settled."""
    session.execute(insert(EventFeed).values(name=FEED, position=0, mark=0, mark_xid=0).on_conflict_do_nothing())
    feed = session.get_one(EventFeed, FEED, with_for_update=True, populate_existing=True)
    settled = feed.position
    if feed.mark_xid <= seen.oldest:
        settled = max(settled, feed.mark)
        if seen.newest > feed.mark:
            feed.mark, feed.mark_xid = seen.newest, seen.next
    if seen.oldest == seen.next:  # no transaction was open
        settled = max(settled, seen.newest)
    hooks = session.scalars(select(Webhook).where(Webhook.active).with_for_update(read=True, key_share=True)).all()
    if not hooks:
        feed.position = settled
        return 0, False
    upto = min(settled, feed.position + SPAN)
    made, last = _deliver(session, hooks, feed.position, upto)
    feed.position = last
    session.flush()
    return made, last < settled


def _deliver(session: Session, hooks: Sequence[Webhook], after: int, upto: int) -> tuple[int, int]:
    """Make the deliveries of events in (after, upto]. Returns how many, and up to which id all were made."""
    kinds = sorted({kind for hook in hooks for kind in hook.kinds})
    query = (
        select(Event, Run.id, Run.name, Run.recipe, Run.labels, Run.project, Stage.name, Attempt.no)
        .join(Run, Run.id == Event.run_id)
        .outerjoin(Stage, Stage.id == Event.stage_id)
        .outerjoin(Attempt, Attempt.id == Event.attempt_id)
        .where(Event.id > after, Event.id <= upto, Event.kind.in_(kinds))
        .order_by(Event.id)
        .limit(BATCH)
    )
    found = session.execute(query).all()
    rows = []
    for event, run_id, name, recipe, labels, project, stage, attempt in found:
        about = payloads.About(project, run_id, name, recipe, labels, stage, attempt or event.data.get("attempt"))
        for hook in hooks:
            if _wants(hook, event, about):
                body = payloads.body(hook.format, event, about)
                rows.append(_row(hook.id, event, run_id, body))
    if rows:
        session.execute(insert(WebhookDelivery).on_conflict_do_nothing(index_elements=["webhook_id", "event_id"]), rows)
    return len(rows), found[-1][0].id if len(found) == BATCH else upto


def _wants(hook: Webhook, event: Event, about: payloads.About) -> bool:
    return (
        event.id > hook.after_event
        and event.kind in hook.kinds
        and hook.project == about.project
        and hook.run_id in (None, about.run_id)
        and set(hook.labels) <= set(about.labels)
        and not (event.kind == "webhook_off" and event.data.get("webhook") == hook.id)
    )


def _row(hook_id: str, event: Event, run_id: str, body: str) -> dict[str, object]:
    return {
        "message_id": new_id("msg"),
        "webhook_id": hook_id,
        "event_id": event.id,
        "run_id": run_id,
        "kind": event.kind,
        "body": body,
    }
