"""The reaper: it needs an expired lease and a silent worker, and never reaps because the control plane itself was away."""

from __future__ import annotations

from sqlalchemy import func, update

from controlplane import claims, reaper, workers
from controlplane.lifecycle import AttemptStatus, Reason, StageStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Loop, Stage
from controlplane.timing import Timing
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import started_run

TIMING = Timing(lease_ttl=120.0, lease_grace=60.0, worker_silent_after=30.0, stall_after=600.0)


def test_an_attempt_with_an_expired_lease_and_a_silent_worker_is_lost(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    steady(ledger)
    expire(ledger, 61)
    silence(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 1
    assert ledger.attempt(claim.fence).status is AttemptStatus.LOST
    stage = ledger.stage(run, "data")
    assert (stage.status, stage.reason) == (StageStatus.BACKOFF, Reason.WORKER_LOST)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0


def test_an_expired_lease_or_a_silent_worker_alone_is_not_enough(ledger: Ledger) -> None:
    run, _ = started_run(ledger)
    steady(ledger)
    expire(ledger, 61)  # only the lease: the worker still sends heartbeats
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    expire(ledger, -100)
    silence(ledger)  # only the silence: the lease has not expired
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    expire(ledger, 59)  # within the grace period
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    assert ledger.stage(run, "data").status is StageStatus.RUNNING


def test_a_lease_that_expired_long_ago_is_enough(ledger: Ledger) -> None:
    """Otherwise a supervisor that hangs would hold its stage for ever, as long as its worker sends heartbeats."""
    started_run(ledger)
    steady(ledger)
    expire(ledger, 600)
    assert reaper.tick(ledger.factory, timing=TIMING) == 1


def test_after_a_pause_of_its_own_the_reaper_waits_for_a_whole_lease(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    expire(ledger, 3600)
    silence(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0  # its first tick ever
    steady(ledger)
    with ledger.factory.begin() as s:  # a pause, as after a database outage
        s.execute(update(Loop).values(ticked_at=func.now() - seconds(31)))
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    with ledger.factory.begin() as s:
        claims.renew(s, claim.fence, timing=TIMING)  # the supervisor comes back in the meantime
    steady(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0


def test_a_stage_without_events_or_log_lines_is_told_to_stop(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    steady(ledger)
    with ledger.factory.begin() as s:
        s.execute(update(Stage).where(Stage.id == claim.fence.stage_id).values(signs_of_life_at=func.now() - seconds(601)))
    assert reaper.tick(ledger.factory, timing=TIMING) == 1
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    with ledger.factory.begin() as s:
        assert claims.renew(s, claim.fence).stop is Reason.STALLED
    assert ledger.finish(claim.fence, Reason.STALLED) is StageStatus.BACKOFF
    assert ledger.stage(run, "data").failures == 1


def test_only_one_process_leads(ledger: Ledger) -> None:
    from controlplane.loops import leading

    with ledger.factory.begin() as first, ledger.factory.begin() as second:
        assert leading(first, "reaper", TIMING)
        assert not leading(second, "reaper", TIMING)
        assert leading(second, "dispatcher", TIMING)
    with ledger.factory.begin() as s:
        assert leading(s, "reaper", TIMING)


def steady(ledger: Ledger) -> None:
    """Make it look as if the reaper had ticked without a gap for an hour."""
    reaper.tick(ledger.factory, timing=TIMING)
    with ledger.factory.begin() as s:
        s.execute(update(Loop).values(steady_since=func.now() - seconds(3600)))


def expire(ledger: Ledger, ago: float) -> None:
    """Let every lease have expired `ago` seconds ago."""
    with ledger.factory.begin() as s:
        s.execute(update(Attempt).values(lease_expires_at=func.now() - seconds(ago)))


def silence(ledger: Ledger) -> None:
    """Let worker `w` have sent no heartbeat for long."""
    with ledger.factory.begin() as s:
        workers.retire(s, "w")
