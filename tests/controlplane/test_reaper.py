"""Leases: taken back on two proofs, never because the control plane itself was away."""

from __future__ import annotations

from sqlalchemy import func, update

from controlplane import claims, reaper, workers
from controlplane.lifecycle import AttemptStatus, Reason, StageStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Loop, Stage
from controlplane.timing import Timing
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import begun

TIMING = Timing(lease_ttl=120.0, lease_grace=60.0, worker_silent_after=30.0, stall_after=600.0)


def test_a_silent_worker_with_an_expired_lease_has_lost_its_attempt(ledger: Ledger) -> None:
    run, claim = begun(ledger)
    steady(ledger)
    expire(ledger, 61)
    silence(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 1
    assert ledger.attempt(claim.fence).status is AttemptStatus.LOST
    stage = ledger.stage(run, "data")
    assert (stage.status, stage.reason) == (StageStatus.BACKOFF, Reason.WORKER_LOST)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0


def test_one_proof_is_not_enough(ledger: Ledger) -> None:
    run, _ = begun(ledger)
    steady(ledger)
    expire(ledger, 61)  # the lease alone: the worker still beats
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    expire(ledger, -100)
    silence(ledger)  # silence alone: the lease still runs
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    expire(ledger, 59)  # within the grace
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    assert ledger.stage(run, "data").status is StageStatus.RUNNING


def test_a_lease_dead_for_long_needs_no_second_proof(ledger: Ledger) -> None:
    """A supervisor that hangs under a worker that beats would hold its stage for ever."""
    begun(ledger)
    steady(ledger)
    expire(ledger, 600)
    assert reaper.tick(ledger.factory, timing=TIMING) == 1


def test_after_a_gap_of_its_own_the_reaper_waits_a_whole_lease(ledger: Ledger) -> None:
    _, claim = begun(ledger)
    expire(ledger, 3600)
    silence(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0  # its first turn ever
    steady(ledger)
    with ledger.factory.begin() as s:  # and a pause, as of a database that was away
        s.execute(update(Loop).values(ticked_at=func.now() - seconds(31)))
    assert reaper.tick(ledger.factory, timing=TIMING) == 0
    with ledger.factory.begin() as s:
        claims.renew(s, claim.fence, timing=TIMING)  # meanwhile the supervisor comes back
    steady(ledger)
    assert reaper.tick(ledger.factory, timing=TIMING) == 0


def test_a_stage_without_a_sign_of_life_is_asked_to_stop(ledger: Ledger) -> None:
    run, claim = begun(ledger)
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
    """As if the reaper had gone round without a gap for an hour."""
    reaper.tick(ledger.factory, timing=TIMING)
    with ledger.factory.begin() as s:
        s.execute(update(Loop).values(steady_since=func.now() - seconds(3600)))


def expire(ledger: Ledger, ago: float) -> None:
    with ledger.factory.begin() as s:
        s.execute(update(Attempt).values(lease_expires_at=func.now() - seconds(ago)))


def silence(ledger: Ledger) -> None:
    with ledger.factory.begin() as s:
        workers.retire(s, "w")
