"""What a lost attempt wrote and nobody stored: its heir, or its worker, stores it once, and the loss curve has no hole."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from controlplane import claims, feeds, metrics, views
from controlplane.claims import Claim, Fence, LateFence
from controlplane.db import SessionFactory, make_engine
from controlplane.db import sessions as make_sessions
from controlplane.errors import FenceLost
from controlplane.leftovers import HOLE
from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Artifact as ArtifactRow
from controlplane.models import Event
from controlplane.points import everywhere
from nanochat.contract.contract import EVENTS, SPEC, Artifact, StageSpec, write_json
from services.worker.leftovers import drain_own
from services.worker.relay import Relay
from services.worker.settings import Settings
from services.worker.storing import Storing
from tests.controlplane.ledger import Ledger, checkpoint
from tests.controlplane.test_claims import started_run
from tests.waiting import until
from tests.worker.test_relay import event

STAGE = "data"  # any stage will do: the ledger does not look at what it trains


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)


@pytest.fixture
def settings(database_url: str, home: Path) -> Settings:
    return Settings(database_url=database_url, home=home)


def train(out: Path, first: int, last: int, *, saved: int = -1, start: int = 0) -> None:
    """Append steps to a spool, whose first event has the number `start`."""
    out.mkdir(parents=True, exist_ok=True)
    seq = start
    with (out / EVENTS).open("ab") as file:
        for step in range(first, last + 1):
            file.write(event(seq, kind="metric", step=step, values={"loss": float(step)}))
            seq += 1
            if step == saved:
                file.write(event(seq, **checkpoint(step)))
                seq += 1


def lose(ledger: Ledger, fence: Fence) -> None:
    assert ledger.finish(fence, Reason.WORKER_LOST) is StageStatus.BACKOFF


def next_attempt(ledger: Ledger, run: str, step: int | None, of: int | None, worker: str = "w") -> Claim:
    until(lambda: ledger.dispatch() or ledger.stage(run, STAGE).status is StageStatus.QUEUED, "the retry")
    claim = ledger.claim(run, STAGE, worker)
    assert claim is not None
    with ledger.factory.begin() as s:
        claims.started(s, claim.fence, process={}, resumed_from_step=step, resumed_from_attempt=of)
    return claim


def curve(ledger: Ledger, run: str) -> list[int]:
    with ledger.factory.begin() as s:
        series = metrics.metrics(s, run, keys=["loss"], max_points=2000).series
    return [p.step for p in series[0].points] if series else []


def points(ledger: Ledger) -> dict[int, int]:
    """Number of points by attempt."""
    with ledger.factory.begin() as s:
        number = everywhere(key="loss").c.attempt_no
        return {row[0]: row[1] for row in s.execute(select(number, func.count()).group_by(number))}


def flush(ledger: Ledger, claim: Claim, out: Path) -> None:
    Relay(ledger.factory, claim.fence, out, 0.05).flush()


def test_the_heir_stores_what_the_lost_attempt_had_written(ledger: Ledger, tmp_path: Path) -> None:
    run, first = started_run(ledger)
    one, two = tmp_path / "attempt-1", tmp_path / "attempt-2"
    train(one, 1, 3)
    flush(ledger, first, one)
    train(one, 4, 10, saved=8, start=3)  # the worker is frozen or cut off: nobody stores these
    lose(ledger, first.fence)

    second = next_attempt(ledger, run, 8, 1)
    train(two, 9, 12)
    for _ in range(2):  # a worker that starts again does it again
        flush(ledger, second, two)
    assert curve(ledger, run) == list(range(1, 13))
    assert points(ledger) == {1: 10, 2: 4}
    with ledger.factory.begin() as s:
        stored = feeds.events(s, run, kinds=["metric", "checkpoint"]).items
        assert s.scalar(select(func.count()).select_from(Event).where(Event.kind == HOLE)) == 0
        assert [c.step for c in views.checkpoints(s, run)] == [8]
    assert [(e.attempt, e.seq) for e in stored] == [(1, n) for n in range(11)] + [(2, n) for n in range(4)]
    assert ledger.stage(run, STAGE).latest == {"loss": 12.0}


def test_a_death_in_the_middle_repeats_and_loses_nothing(ledger: Ledger, tmp_path: Path) -> None:
    run, first = started_run(ledger)
    one, two = tmp_path / "attempt-1", tmp_path / "attempt-2"
    train(one, 1, 4500, saved=4500)
    lose(ledger, first.fence)
    second = next_attempt(ledger, run, 4500, 1)
    late = LateFence(run, first.fence.stage_id, first.fence.attempt_id, 1, second.fence)
    assert Storing(ledger.factory, late, one).some(last=True)  # 2,000 lines, one transaction; then its process dies
    assert points(ledger) == {1: 2000}
    lose(ledger, second.fence)
    with pytest.raises(FenceLost):  # it comes back from the dead
        Storing(ledger.factory, late, one).rest()
    assert points(ledger) == {1: 2000}

    third = next_attempt(ledger, run, 4500, 1)
    train(two.parent / "attempt-3", 4501, 4510)
    flush(ledger, third, two.parent / "attempt-3")
    assert points(ledger) == {1: 4500, 3: 10}
    with ledger.factory.begin() as s:
        twice = select(Event.attempt_id).where(Event.seq.is_not(None)).group_by(Event.attempt_id, Event.seq)
        assert s.scalar(select(func.count()).select_from(twice.having(func.count() > 1).subquery())) == 0
        steps = metrics.metrics(s, run, keys=["loss"], max_points=2000).series[0].points
    assert (steps[0].step, steps[-1].step) == (1, 4510)


def test_the_end_waits_for_the_leftovers_while_the_ledger_is_away(ledger: Ledger, tmp_path: Path) -> None:
    run, first = started_run(ledger)
    train(tmp_path / "attempt-1", 1, 5, saved=5)
    lose(ledger, first.fence)
    second = next_attempt(ledger, run, 5, 1)
    train(tmp_path / "attempt-2", 6, 7)
    away = make_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    relay = Relay(make_sessions(away), second.fence, tmp_path / "attempt-2", 0.05)
    with pytest.raises(OperationalError):
        relay.flush()
    away.dispose()
    relay._factory = ledger.factory  # it answers again
    relay._storing = Storing(ledger.factory, second.fence, tmp_path / "attempt-2")
    relay.flush()
    assert curve(ledger, run) == list(range(1, 8))


def test_files_that_are_not_here_leave_a_hole_that_an_event_tells_until_their_worker_fills_it(
    ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    run, first = started_run(ledger)
    theirs = settings.output_dir(run, STAGE, 1)  # the home of the lost worker
    train(theirs, 1, 3)
    flush(ledger, first, theirs)
    train(theirs, 4, 9, saved=8, start=3)
    lose(ledger, first.fence)

    ledger.worker("other", "cpu")
    second = next_attempt(ledger, run, 8, 1, "other")
    mine = tmp_path / "attempt-2"
    train(mine, 9, 12)
    for _ in range(2):
        flush(ledger, second, mine)
    assert curve(ledger, run) == [1, 2, 3, 9, 10, 11, 12]
    with ledger.factory.begin() as s:
        (told,) = feeds.events(s, run, kinds=[HOLE]).items
    assert (told.stage, told.attempt, told.data["lost"], told.data["after"], told.data["to"]) == (STAGE, 2, 1, 3, 8)
    assert "ran on worker w, are not at" in told.data["message"]

    assert drain_own(ledger.factory, "other", settings) == 0
    assert drain_own(ledger.factory, "w", settings) == 1
    assert drain_own(ledger.factory, "w", settings) == 0
    assert curve(ledger, run) == list(range(1, 13))


def test_a_worker_stores_what_it_left_though_nobody_continues_the_stage(ledger: Ledger, settings: Settings) -> None:
    run, first = started_run(ledger)
    out = settings.output_dir(run, STAGE, 1)
    train(out, 1, 6)
    with (out / EVENTS).open("ab") as file:
        file.write(event(6, kind="artifact", name="results", path="/x", sha256="0" * 64) + b"no event\n")
    (out / "stdout.log").write_bytes(b"Killed\n")
    lose(ledger, first.fence)
    assert drain_own(ledger.factory, "w", settings) == 1
    assert curve(ledger, run) == list(range(1, 7))
    with ledger.factory.begin() as s:
        assert [line.line for line in feeds.logs(s, run).items] == ["Killed"]
        assert [e.attempt for e in feeds.events(s, run, kinds=["line_quarantined"]).items] == [1]
        assert s.scalar(select(func.count()).select_from(ArtifactRow)) == 0  # only a live attempt publishes
    assert (ledger.stage(run, STAGE).status, ledger.stage(run, STAGE).latest) == (StageStatus.BACKOFF, {})


def test_an_attempt_that_could_not_even_report_its_start_counts_in_the_curve(ledger: Ledger, tmp_path: Path) -> None:
    """The database was away from the claim to the death."""
    run, first = started_run(ledger)
    train(tmp_path / "attempt-1", 1, 5, saved=5)
    lose(ledger, first.fence)
    until(lambda: ledger.dispatch() or ledger.stage(run, STAGE).status is StageStatus.QUEUED, "the retry")
    second = ledger.claim(run, STAGE, "w")
    assert second is not None
    two = tmp_path / "attempt-2"
    train(two, 6, 9, saved=9)
    resumed = Artifact(path=str(tmp_path / "attempt-1/checkpoints/step_000005"), sha256="0" * 64)
    spec = StageSpec(
        run=run, stage=STAGE, kind=STAGE, config={}, inputs={}, output_dir=str(two), cache_dir="/", resume_from=resumed
    )
    write_json(two / SPEC, spec.model_dump(mode="json"))
    lose(ledger, second.fence)
    third = next_attempt(ledger, run, 9, 2)
    train(tmp_path / "attempt-3", 10, 11)
    flush(ledger, third, tmp_path / "attempt-3")
    assert curve(ledger, run) == list(range(1, 12))


def test_the_curve_follows_the_attempt_whose_checkpoint_was_taken(ledger: Ledger, tmp_path: Path) -> None:
    """The second attempt could not read the newest checkpoint of the first; the third can, and continues the first."""
    run, first = started_run(ledger)
    train(tmp_path / "attempt-1", 1, 8, saved=8)
    flush(ledger, first, tmp_path / "attempt-1")
    lose(ledger, first.fence)
    second = next_attempt(ledger, run, 4, 1)
    train(tmp_path / "attempt-2", 5, 6)
    flush(ledger, second, tmp_path / "attempt-2")
    assert curve(ledger, run) == list(range(1, 7))
    lose(ledger, second.fence)
    third = next_attempt(ledger, run, 8, 1)
    train(tmp_path / "attempt-3", 9, 10)
    flush(ledger, third, tmp_path / "attempt-3")
    assert curve(ledger, run) == list(range(1, 11))
