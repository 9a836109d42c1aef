"""What is deleted of old and of long runs, what is kept, and how readers learn of it."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import func, select, text

from controlplane import feeds, history, ingest, metrics
from controlplane.claims import Claim
from controlplane.history import Keep
from controlplane.lifecycle import Reason
from controlplane.models import Event, LogLine
from controlplane.transitions import gate
from tests.controlplane.ledger import Ledger, checkpoint, metric
from tests.controlplane.test_claims import started_run

ALL = Keep()


def tick(ledger: Ledger, keep: Keep) -> int:
    return history.tick(ledger.factory, keep)


def kinds(ledger: Ledger, run: str) -> Counter[str]:
    with ledger.factory.begin() as s:
        return Counter(s.scalars(select(Event.kind).where(Event.run_id == run)))


def train(ledger: Ledger, claim: Claim, steps: int) -> None:
    ledger.report(claim.fence, *[metric(n, loss=float(n)) for n in range(steps)], checkpoint(steps))


def log(ledger: Ledger, claim: Claim, first: int, count: int) -> None:
    with ledger.factory.begin() as s:
        ingest.logs(s, claim.fence, first, [f"line {n}" for n in range(first, first + count)])


def grow_old(ledger: Ledger, table: str, days: int) -> None:
    with ledger.factory.begin() as s:
        s.execute(text(f"UPDATE {table} SET t = clock_timestamp() - make_interval(days => :days)"), {"days": days})


def test_of_a_long_run_the_newest_events_are_kept_and_all_that_explain_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 70)
    run, claim = started_run(ledger)
    train(ledger, claim, 300)
    before = kinds(ledger, run)
    with ledger.factory.begin() as s:
        first = feeds.events(s, run, limit=1000).items
        s.execute(text("UPDATE event SET t = clock_timestamp()"))
    assert tick(ledger, Keep(events=100)) == 200
    assert tick(ledger, Keep(events=100)) == 0
    assert kinds(ledger, run) == before - Counter(metric=200)
    with ledger.factory.begin() as s:
        page = feeds.events(s, run, limit=1000)
        (gap,) = page.gaps
        later = feeds.events(s, run, after=gap.last_id, limit=1000)
        series = metrics.metrics(s, run, keys=["loss"], max_points=2000).series[0]
        assert feeds.events(s, run, kinds=["checkpoint"]).gaps == []
        assert [g.events for g in feeds.events(s, run, kinds=["metric"]).gaps] == [200]
    assert len(series.points) == 300  # the curve stays whole
    assert gap.events == 200
    assert gap.last_id in {e.id for e in first}
    assert [e.data["step"] for e in page.items if e.kind == "metric"] == list(range(200, 300))
    assert later.gaps == []


def test_old_events_go_whatever_their_number(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    train(ledger, claim, 20)
    grow_old(ledger, "event", 91)
    train_later = [metric(n, loss=0.0) for n in range(20, 25)]
    ledger.report(claim.fence, *train_later)
    with ledger.factory.begin() as s:
        s.execute(text("UPDATE event SET t = clock_timestamp() WHERE seq > 20"))
    assert tick(ledger, ALL) == 20
    assert kinds(ledger, run)["metric"] == 5
    assert kinds(ledger, run)["stage_status"] == 3


def test_when_all_events_of_a_kind_are_gone_a_cursor_on_them_is_still_valid(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    ledger.report(claim.fence, metric(1, loss=1.0))
    with ledger.factory.begin() as s:
        newest = feeds.newest_id(s, Event, run)
    grow_old(ledger, "event", 100)
    assert tick(ledger, ALL) == 1
    with ledger.factory.begin() as s:
        assert feeds.newest_id(s, Event, run) == newest
        page = feeds.events(s, run, kinds=["metric"])
    assert (page.items, [g.events for g in page.gaps]) == ([], [1])


def test_of_a_run_the_newest_lines_are_kept_those_of_old_attempts_go_first(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "BATCH", 70)
    run, first = started_run(ledger)
    log(ledger, first, 0, 150)
    ledger.finish(first.fence, Reason.USER_PAUSE)
    second = ledger.begin(run, "data", "w")
    log(ledger, second, 0, 150)
    assert tick(ledger, Keep(log_lines=200)) == 100
    with ledger.factory.begin() as s:
        page = feeds.logs(s, run, limit=1000)
    assert [(g.attempt, g.lines) for g in page.gaps] == [(1, 100)]
    assert [(x.attempt, x.no) for x in page.items] == [(1, n) for n in range(100, 150)] + [(2, n) for n in range(150)]
    log(ledger, second, 150, 200)
    assert tick(ledger, Keep(log_lines=200)) == 200
    log(ledger, second, 350, 1)  # it goes on
    with ledger.factory.begin() as s:
        page = feeds.logs(s, run, limit=1000)
        assert page.items[-1].no == 350
        assert feeds.logs(s, run, after=page.items[0].id).gaps == []
    assert [(g.attempt, g.lines) for g in page.gaps] == [(1, 150), (2, 150)]


def test_old_lines_go_and_a_resumed_reader_is_told(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    log(ledger, claim, 0, 30)
    grow_old(ledger, "log_line", 91)
    log(ledger, claim, 30, 10)
    with ledger.factory.begin() as s:
        seen = feeds.logs(s, run, limit=10).next_after
    assert tick(ledger, ALL) == 30
    with ledger.factory.begin() as s:
        page = feeds.logs(s, run, after=seen)
        assert s.scalar(select(func.count()).select_from(LogLine)) == 10
    assert [(g.lines, g.stage) for g in page.gaps] == [(30, "data")]
    assert page.items[0].no == 30


def test_what_is_being_written_to_is_left_for_the_next_tick(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    train(ledger, claim, 30)
    log(ledger, claim, 0, 30)
    grow_old(ledger, "event", 91)
    grow_old(ledger, "log_line", 91)
    with ledger.factory.begin() as other, gate(other, run):
        other.execute(select(func.pg_advisory_xact_lock(ingest.LOG_LOCK, func.hashtext(run))))
        assert tick(ledger, ALL) == 0
    assert tick(ledger, ALL) == 60
