"""The lease of an attempt while its events and lines cannot be stored, and the end of the renewal."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select

from controlplane import claims
from controlplane.db import SessionFactory, make_engine
from controlplane.db import sessions as make_sessions
from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Attempt
from controlplane.timing import Timing
from controlplane.transitions import gate
from nanochat.contract import lease
from services.worker.relay import Relay
from services.worker.renewal import Renewal
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import started_run
from tests.waiting import until
from tests.worker.test_relay import event

TTL_S = 1.0


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)


def renewal(ledger: Ledger, fence: claims.Fence) -> Renewal:
    return Renewal(ledger.factory, fence, Timing(lease_ttl=TTL_S), 0.05)


def left_s(ledger: Ledger, fence: claims.Fence) -> float:
    """Seconds until the lease runs out."""
    with ledger.factory.begin() as s:
        left = func.extract("epoch", Attempt.lease_expires_at - func.clock_timestamp())
        return float(s.scalars(select(left).where(Attempt.id == fence.attempt_id)).one())


def test_a_lease_does_not_wait_for_events_that_cannot_be_stored(ledger: Ledger, tmp_path: Path) -> None:
    run, claim = started_run(ledger)
    (tmp_path / "events.jsonl").write_bytes(event(0, kind="metric", step=1, values={"loss": 1.0}))
    renews, relay = renewal(ledger, claim.fence), Relay(ledger.factory, claim.fence, tmp_path, 0.05)
    with ledger.factory.begin() as other, gate(other, run):  # the relay waits for this lock
        renews.start()
        relay.start()
        until(lambda: renews.held_until > lease.now(), "the first renewal")
        began, lowest = time.monotonic(), TTL_S
        while time.monotonic() < began + 3 * TTL_S:
            lowest = min(lowest, left_s(ledger, claim.fence))
            assert renews.held_until > lease.now()
        assert ledger.attempt(claim.fence).event_seq == -1
    assert lowest > 0.2 * TTL_S
    until(lambda: ledger.attempt(claim.fence).event_seq == 0, "the event")
    relay.close()
    renews.close()


def test_a_lease_outlives_a_flood_of_lines(ledger: Ledger, tmp_path: Path) -> None:
    """The lines take longer than the lease; it is renewed meanwhile."""
    _, claim = started_run(ledger)
    (tmp_path / "stdout.log").write_bytes(b"step 1 loss 2.0\n" * 60_000)
    renews, relay = renewal(ledger, claim.fence), Relay(ledger.factory, claim.fence, tmp_path, 0.05)
    renews.start()
    until(lambda: left_s(ledger, claim.fence) > 0, "the first renewal")
    relay.start()
    lowest, began = TTL_S, time.monotonic()
    while ledger.attempt(claim.fence).log_no < 59_999:
        lowest = min(lowest, left_s(ledger, claim.fence))
        assert time.monotonic() < began + 120
    relay.close()
    renews.close()
    assert time.monotonic() > began + TTL_S
    assert lowest > 0


def test_a_stop_request_comes_with_the_answer_to_a_renewal(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    renews = renewal(ledger, claim.fence)
    renews.start()
    with ledger.factory.begin() as s:
        claims.stopping(s, claim.fence, Reason.USER_CANCEL)
    until(lambda: renews.stop_reason is Reason.USER_CANCEL, "the request")
    renews.close()


def test_the_end_of_an_attempt_is_not_taken_for_its_loss(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    renews = renewal(ledger, claim.fence)
    renews.start()
    until(lambda: renews.held_until > 0, "the first renewal")
    with renews.last_word(), ledger.factory.begin() as s:
        assert claims.finish(s, claim.fence, Reason.USER_PAUSE) is StageStatus.QUEUED
    renews.close()
    assert not renews.lost
    assert not renews.died


def test_a_lost_fence_ends_the_renewal_and_a_defect_does_not(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    _, claim = started_run(ledger)
    broken = threading.Event()
    factory = ledger.factory

    class Flaky:
        def begin(self) -> object:
            if not broken.is_set():
                broken.set()
                raise LookupError("a defect")
            return factory.begin()

    renews = Renewal(Flaky(), claim.fence, Timing(lease_ttl=TTL_S), 0.05)  # type: ignore[arg-type]
    renews.start()
    until(lambda: renews.held_until > 0, "a renewal after the defect")
    assert "a defect" in caplog.text
    ledger.finish(claim.fence, Reason.WORKER_LOST)
    until(lambda: renews.lost, "the loss to be seen")
    assert not renews.died
    renews.close()


def test_nothing_is_renewed_while_the_ledger_is_away(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    engine = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    renews = Renewal(make_sessions(engine), claim.fence, Timing(lease_ttl=TTL_S), 0.05)
    renews.start()
    until(lambda: renews._away_since is not None, "the silence to be noticed")
    assert renews.held_until == 0.0
    assert not renews.lost
    renews.close()
    engine.dispose()
