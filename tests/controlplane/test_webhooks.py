"""The outbox of webhooks on a real Postgres: no event is lost, none is delivered twice, and those of a run go out in order."""

from __future__ import annotations

import json
import random
import re
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

import controlplane
from controlplane import deliveries, outbox, runs, webhooks
from controlplane.db import SessionFactory
from controlplane.deliveries import Order, Outcome
from controlplane.models import Event
from controlplane.timing import Timing
from controlplane.transitions import gate
from controlplane.webhook_kinds import DeliveryStatus, EventKind, Format
from controlplane.webhook_models import EventFeed, Webhook, WebhookDelivery
from nanochat.config import recipe
from tests.controlplane.ledger import Ledger, metric
from tests.waiting import until

GOOD, BAD = Outcome(200, ""), Outcome(500, "the receiver answered 500")
NOW = Timing(webhook_backoff=(0.0,))


class Abort(Exception):
    """Rolls a transaction back."""


def make(factory: SessionFactory, **given: Any) -> str:
    values = {
        "project": "default",
        "owner": "k_1",
        "name": "a hook",
        "url": "https://example.com/hook?token=secret",
        "format": Format.JSON,
        "kinds": [EventKind.RUN_CHANGED],
        "run_id": None,
        "labels": [],
        "nonce": "n",
        "secret_digest": "d",
    }
    with factory.begin() as session:
        return webhooks.create(session, **{**values, **given}).id


def note(factory: SessionFactory, run_id: str, kind: str = "run_changed", **data: Any) -> None:
    with factory.begin() as session, gate(session, run_id) as g:
        g.note(kind, None, data)


def advance(factory: SessionFactory) -> int:
    """Make the deliveries of what is settled now. Returns how many were made."""
    total, more = 0, True
    while more:
        with factory() as session:
            seen = outbox.horizon(session)
        with factory.begin() as session:
            made, more = outbox.advance(session, seen)
        total += made
    return total


def settle(factory: SessionFactory) -> int:
    """Make the deliveries of all events so far. Other databases of the server may have transactions open."""
    with factory() as session:
        newest = outbox.newest_event_id(session)
    made = 0

    def reached() -> bool:
        nonlocal made
        made += advance(factory)
        with factory() as session:
            return session.get_one(EventFeed, outbox.FEED).position >= newest

    until(reached, "the events to settle")
    return made


def claim(factory: SessionFactory, free: int = 100, **busy: int) -> list[Order]:
    with factory.begin() as session:
        return deliveries.claim(session, busy, free)


def record(factory: SessionFactory, order: Order, outcome: Outcome, timing: Timing = NOW) -> None:
    with factory.begin() as session:
        deliveries.record(session, order, outcome, timing=timing)


def row(session: Session, order: Order) -> WebhookDelivery:
    return session.get_one(WebhookDelivery, order.id, populate_existing=True)


def details(order: Order) -> Any:
    return json.loads(order.body)["data"]["details"]


def test_an_event_that_is_committed_late_with_a_smaller_id_is_not_lost(ledger: Ledger) -> None:
    late, early = ledger.submit(), ledger.submit()
    make(ledger.factory)
    settle(ledger.factory)
    with ledger.factory.begin() as session, gate(session, late) as g:
        g.note("run_changed", None, {"n": "late"})
        note(ledger.factory, early, n="early")
        for _ in range(3):
            advance(ledger.factory)
    settle(ledger.factory)
    with ledger.factory() as session:
        events = select(Event.run_id).where(Event.kind == "run_changed").order_by(Event.id)
        assert session.scalars(events).all() == [late, early]
    assert [details(order)["n"] for order in claim(ledger.factory)] == ["late", "early"]


def test_every_event_of_concurrent_writers_becomes_one_delivery_in_the_order_of_its_run(sessions: SessionFactory) -> None:
    ledger = Ledger(sessions)
    ids = [ledger.submit() for _ in range(4)]
    hook = make(sessions)
    start, wrote = threading.Barrier(5), threading.Event()
    errors: list[BaseException] = []

    def write(seed: int) -> None:
        try:
            chance = random.Random(seed)
            start.wait()
            for n in range(30):
                with suppress(Abort), sessions.begin() as session, gate(session, chance.choice(ids)) as g:
                    g.note("run_changed", None, {"writer": seed, "n": n})
                    if chance.random() < 0.2:
                        raise Abort
        except BaseException as err:
            errors.append(err)

    def read() -> None:
        try:
            while not wrote.is_set():
                advance(sessions)
        except BaseException as err:
            errors.append(err)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    start.wait()
    for thread in writers:
        thread.join()
    wrote.set()
    for thread in readers:
        thread.join()
    settle(sessions)
    assert errors == []
    with sessions() as session:
        events = session.scalars(select(Event.id).where(Event.kind == "run_changed")).all()
        made = select(WebhookDelivery).where(WebhookDelivery.webhook_id == hook).order_by(WebhookDelivery.id)
        by_run = defaultdict(list)
        for delivery in session.scalars(made):
            by_run[delivery.run_id].append(delivery.event_id)
    assert len(events) > 60
    assert sorted(event for found in by_run.values() for event in found) == sorted(events)
    assert all(found == sorted(found) for found in by_run.values())


def test_a_webhook_gets_what_it_asks_for(ledger: Ledger) -> None:
    mine = ledger.submit()
    note(ledger.factory, mine, before="it was made")
    with ledger.factory.begin() as session:
        runs.describe(session, mine, labels=["nightly", "team:a"])
        foreign = runs.submit(session, recipe.resolve("tiny"), project="other").run.id
    every = make(ledger.factory)
    one = make(ledger.factory, run_id=mine, kinds=[EventKind.RUN_CHANGED, EventKind.EVAL], labels=["nightly"])
    make(ledger.factory, run_id=ledger.submit())
    make(ledger.factory, labels=["nightly", "weekly"])
    theirs = make(ledger.factory, project="other")
    off = make(ledger.factory)
    with ledger.factory.begin() as session:
        webhooks.change(session, "default", off, {"active": False})
    ledger.worker("w", "cpu")
    ledger.dispatch()
    stage = ledger.begin(mine, "data", "w")
    ledger.report(stage.fence, metric(1, loss=1.0), {"kind": "eval", "name": "core", "values": {"core": 0.2}})
    note(ledger.factory, mine, priority=1)
    note(ledger.factory, foreign, priority=2)
    settle(ledger.factory)
    with ledger.factory() as session:
        found = session.execute(select(WebhookDelivery.webhook_id, WebhookDelivery.kind, WebhookDelivery.run_id)).all()
        body = json.loads(session.scalars(select(WebhookDelivery.body).where(WebhookDelivery.kind == "eval")).one())
    assert sorted(tuple(r) for r in found) == sorted(
        [(every, "run_changed", mine), (one, "eval", mine), (one, "run_changed", mine), (theirs, "run_changed", foreign)]
    )
    assert body["type"] == "eval"
    assert body["data"]["run"] == {"id": mine, "name": "tiny", "recipe": "tiny", "labels": ["nightly", "team:a"]}
    assert (body["data"]["stage"], body["data"]["attempt"]) == ("data", 1)
    assert body["data"]["details"] == {"name": "core", "values": {"core": 0.2}}


def test_of_one_run_only_the_oldest_is_sent_and_other_runs_are_not_held_up(ledger: Ledger) -> None:
    one, two = ledger.submit(), ledger.submit()
    make(ledger.factory)
    for n in range(3):
        note(ledger.factory, one, n=n)
    note(ledger.factory, two, n=9)
    settle(ledger.factory)
    first, other = claim(ledger.factory)
    assert (details(first)["n"], details(other)["n"]) == (0, 9)
    record(ledger.factory, other, GOOD)
    assert claim(ledger.factory) == []
    record(ledger.factory, first, BAD)
    (again,) = claim(ledger.factory)
    assert (again.message_id, again.body, again.try_no) == (first.message_id, first.body, 2)
    record(ledger.factory, again, GOOD)
    for n in (1, 2):
        (following,) = claim(ledger.factory)
        assert details(following)["n"] == n
        record(ledger.factory, following, GOOD)
    assert claim(ledger.factory) == []


def test_a_claim_whose_sender_died_is_taken_over_with_the_same_id(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = ledger.submit()
    make(ledger.factory)
    note(ledger.factory, run_id)
    settle(ledger.factory)
    monkeypatch.setattr(deliveries, "CLAIM_S", 0.1)
    (lost,) = claim(ledger.factory)
    (taken,) = until(lambda: claim(ledger.factory), "the claim to run out")
    assert (taken.message_id, taken.try_no) == (lost.message_id, 2)
    record(ledger.factory, lost, BAD)  # the first one was only slow: its failure says nothing about the second try
    with ledger.factory() as session:
        assert (row(session, taken).status, row(session, taken).error) == (DeliveryStatus.PENDING, "")
    record(ledger.factory, lost, GOOD)
    record(ledger.factory, taken, BAD)
    with ledger.factory() as session:
        assert (row(session, taken).status, row(session, taken).response_status) == (DeliveryStatus.DELIVERED, 200)


def test_a_busy_webhook_takes_no_one_s_turn(ledger: Ledger) -> None:
    ids = [ledger.submit() for _ in range(6)]
    busy = make(ledger.factory)
    for run_id in ids:
        note(ledger.factory, run_id)
    settle(ledger.factory)
    idle = make(ledger.factory)
    note(ledger.factory, ids[0])
    settle(ledger.factory)
    assert {order.webhook_id for order in claim(ledger.factory, 2)} == {busy, idle}
    assert [order.webhook_id for order in claim(ledger.factory, **{busy: 1})] == [busy] * (deliveries.PER_WEBHOOK - 1)


def test_a_delivery_is_given_up_after_the_last_try_and_the_next_one_passes(ledger: Ledger) -> None:
    run_id = ledger.submit()
    hook = make(ledger.factory)
    note(ledger.factory, run_id, n=0)
    note(ledger.factory, run_id, n=1)
    settle(ledger.factory)
    timing = Timing(webhook_backoff=(0.0,), webhook_tries=3)
    for _ in range(3):
        (order,) = claim(ledger.factory)
        assert details(order)["n"] == 0
        record(ledger.factory, order, BAD, timing)
    assert details(*claim(ledger.factory))["n"] == 1
    with ledger.factory() as session:
        assert row(session, order).status is DeliveryStatus.FAILED
        view = webhooks.page(session, "default").items[0]
    assert (view.id, view.last_status, view.waiting, view.failing_since is None) == (hook, 500, 1, False)
    with ledger.factory.begin() as session:
        again = deliveries.redeliver(session, "default", hook, order.message_id)
    assert (again.status, again.tries, again.id) == (DeliveryStatus.PENDING, 0, order.message_id)


def test_the_time_between_tries_grows_has_jitter_and_obeys_the_receiver(ledger: Ledger) -> None:
    run_id = ledger.submit()
    make(ledger.factory)
    note(ledger.factory, run_id)
    settle(ledger.factory)
    (order,) = claim(ledger.factory)
    waits = []
    for outcome in (BAD, BAD, Outcome(429, "the receiver answered 429", 100.0), Outcome(503, "x", 1e9)):
        with ledger.factory.begin() as session:
            before = session.scalar(
                update(WebhookDelivery).values(next_try_at=func.clock_timestamp()).returning(WebhookDelivery.next_try_at)
            )
            deliveries.record(session, order, outcome, timing=Timing(webhook_backoff=(10.0, 3600.0)))
            waits.append(float(session.scalar(select(func.extract("epoch", WebhookDelivery.next_try_at - before))) or 0))
    slow = 8  # seconds that a busy machine may take between the two clocks
    assert all(10 <= wait < 15 + slow for wait in waits[:2])
    assert waits[0] != waits[1]
    assert 100 <= waits[2] < 100 + slow
    assert 3600 <= waits[3] < 3600 + slow


@pytest.mark.parametrize("gone", [True, False])
def test_a_webhook_that_is_gone_or_has_failed_for_a_day_is_switched_off_with_an_event(ledger: Ledger, gone: bool) -> None:
    run_id = ledger.submit()
    hook = make(ledger.factory)
    told = make(ledger.factory, kinds=[EventKind.WEBHOOK_OFF])
    note(ledger.factory, run_id)
    note(ledger.factory, run_id)
    settle(ledger.factory)
    (order,) = claim(ledger.factory)
    timing = Timing(webhook_backoff=(0.0,), webhook_off_after=0.0)
    record(ledger.factory, order, Outcome(410, "the receiver answered 410") if gone else BAD, timing)
    if not gone:
        with ledger.factory() as session:
            assert session.get_one(Webhook, hook).active
        record(ledger.factory, *claim(ledger.factory), BAD, timing)
    with ledger.factory() as session:
        found = session.get_one(Webhook, hook)
        assert not found.active
        assert ("410" if gone else "every try since") in found.off_reason
        event = session.scalars(select(Event).where(Event.kind == "webhook_off")).one()
        assert (event.run_id, event.data["webhook"], event.data["message"]) == (run_id, hook, found.off_reason)
    settle(ledger.factory)
    assert [order.webhook_id for order in claim(ledger.factory)] == [told]
    with ledger.factory.begin() as session:
        webhooks.change(session, "default", hook, {"active": True})
        view = webhooks.view(session, webhooks.find(session, "default", hook))
    assert (view.active, view.off_reason, view.failing_since) == (True, "", None)
    assert len(claim(ledger.factory)) == 1  # what waited goes on


def test_old_deliveries_are_given_up_and_later_forgotten(ledger: Ledger) -> None:
    run_id = ledger.submit()
    make(ledger.factory)
    note(ledger.factory, run_id)
    settle(ledger.factory)
    with ledger.factory.begin() as session:
        deliveries.tidy(session)
        assert session.scalars(select(WebhookDelivery.status)).one() is DeliveryStatus.PENDING
        deliveries.tidy(session, timing=Timing(webhook_max_age=0.0))
        assert session.scalars(select(WebhookDelivery.status)).one() is DeliveryStatus.FAILED
        deliveries.tidy(session)
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 1
        deliveries.tidy(session, timing=Timing(webhook_kept=0.0))
        assert session.scalar(select(func.count()).select_from(WebhookDelivery)) == 0


def test_a_webhook_with_too_many_waiting_deliveries_is_switched_off(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "MOST_PENDING", 3)
    run_id = ledger.submit()
    hook = make(ledger.factory)
    for count, active in ((3, True), (1, False)):
        for _ in range(count):
            note(ledger.factory, run_id)
        settle(ledger.factory)
        with ledger.factory.begin() as session:
            deliveries.tidy(session)
            assert session.get_one(Webhook, hook, populate_existing=True).active is active


def test_deliveries_of_a_deleted_run_are_still_sent(ledger: Ledger) -> None:
    run_id = ledger.submit()
    make(ledger.factory, kinds=[EventKind.RUN_DELETED, EventKind.RUN_STATUS])
    with ledger.factory.begin() as session:
        runs.cancel(session, run_id)
        runs.delete(session, run_id)
    settle(ledger.factory)
    kinds = []
    while orders := claim(ledger.factory):
        kinds += [json.loads(order.body)["type"] for order in orders]
        for order in orders:
            record(ledger.factory, order, GOOD)
    assert kinds == ["run_status", "run_deleted"]


def test_a_slack_message_is_one_line_in_which_a_name_can_do_nothing(ledger: Ledger) -> None:
    run_id = ledger.submit()
    with ledger.factory.begin() as session:
        runs.describe(session, run_id, name="<!channel> & co")
    make(ledger.factory, format=Format.SLACK, kinds=[EventKind.BUDGET_WARNING, EventKind.RUN_STATUS])
    note(ledger.factory, run_id, "budget_warning", message="$9 of <$10> used")
    settle(ledger.factory)
    (order,) = claim(ledger.factory)
    text = f"*&lt;!channel&gt; &amp; co* (`{run_id}`) budget warning: $9 of &lt;$10&gt; used"
    assert json.loads(order.body) == {"text": text}


def test_the_body_of_a_huge_event_is_bounded(ledger: Ledger) -> None:
    run_id = ledger.submit()
    make(ledger.factory)
    note(ledger.factory, run_id, message="x" * 100_000)
    settle(ledger.factory)
    (order,) = claim(ledger.factory)
    assert details(order) == {"truncated": True}


def test_every_kind_of_event_that_the_ledger_writes_can_be_asked_for() -> None:
    sources = "".join(path.read_text() for path in Path(controlplane.__file__).parent.glob("*.py"))
    written = set(re.findall(r'(?:\.note\(\s*|Event\([^()]*kind=|HOLE = )"(\w+)"', sources))
    assert {"run_status", "run_submitted", "metrics_missing"} <= written
    assert written <= {kind.value for kind in EventKind}
