"""Events and log lines are stored exactly once, however often they are sent, and only with a current fence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from controlplane import feeds, ingest, promotion, views
from controlplane.claims import Claim
from controlplane.errors import Conflict, FenceLost
from controlplane.lifecycle import Reason
from controlplane.models import Event, LogLine, MetricPoint, Stage
from tests.controlplane.ledger import Ledger, artifact, checkpoint, checkpoint_deleted, metric
from tests.controlplane.test_claims import started_run
from tests.waiting import until


def numbered(*events: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"v": 1, "seq": i, "t": 1_700_000_000.0 + i, **e} for i, e in enumerate(events)]


def stored(ledger: Ledger) -> list[int | None]:
    with ledger.factory.begin() as s:
        return list(s.scalars(select(Event.seq).where(Event.seq.is_not(None)).order_by(Event.id)))


def store(ledger: Ledger, claim: Claim, batch: list[dict[str, Any]]) -> int:
    with ledger.factory.begin() as s:
        return ingest.events(s, claim.fence, batch)


@given(cuts=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_events_that_are_sent_again_are_stored_once(ledger: Ledger, cuts: list[tuple[int, int]]) -> None:
    """A relay that restarts sends events again that it has not seen confirmed."""
    _, claim = started_run(ledger)
    spool = numbered(*[metric(i, loss=float(i)) for i in range(20)])
    reached = 0
    for back, ahead in cuts:
        start = max(0, reached - back)
        batch = spool[start : reached + ahead]
        new = store(ledger, claim, batch)
        assert new == max(0, len(batch) - (reached - start))
        reached += new
    store(ledger, claim, spool)
    with ledger.factory.begin() as s:
        seqs = list(s.scalars(select(Event.seq).where(Event.attempt_id == claim.fence.attempt_id).order_by(Event.id)))
        points = s.scalars(select(MetricPoint.step).where(MetricPoint.stage_id == claim.fence.stage_id)).all()
    assert seqs == list(range(20))
    assert sorted(points) == list(range(20))
    ledger.finish(claim.fence, Reason.BAD_INPUT)


def test_a_batch_that_is_rolled_back_stores_nothing(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    batch = numbered(metric(0, loss=1.0), artifact("tok_shards"))
    with ledger.factory() as s:
        ingest.events(s, claim.fence, batch)
        s.rollback()
    assert stored(ledger) == []
    assert store(ledger, claim, batch) == 2


def test_every_kind_of_event_is_stored_in_its_table(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    progress = {"kind": "progress", "done": 3, "total": 10, "unit": "step", "eta_s": 7.5}
    store(
        ledger,
        claim,
        numbered(
            progress, metric(3, loss=2.5, lrm=1.0), metric(4, loss="nan"), checkpoint(4, final=True), artifact("tok_shards")
        ),
    )
    with ledger.factory.begin() as s:
        view = views.run_view(s, run).stages[0]
        (saved,) = views.checkpoints(s, run)
    assert view.progress is not None
    assert (view.progress.done, view.progress.total, view.progress.eta_s) == (3, 10, 7.5)
    assert view.latest == {"loss": "nan", "lrm": 1.0}
    assert [a.name for a in view.artifacts] == ["tok_shards"]
    assert (saved.step, saved.final, saved.bytes, saved.val_bpb) == (4, True, 1004, 1.0)


def test_text_that_postgres_cannot_store_is_cleaned(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim, numbered({"kind": "sample", "step": 1, "prompt": "a\x00b", "text": "x", "more": {"deep": ["\x00"]}}))
    with ledger.factory.begin() as s:
        ingest.logs(s, claim.fence, 0, ["nul \x00 here", "y" * 100_000])
        (sample,) = feeds.events(s, run, kinds=["sample"]).items
        lines = feeds.logs(s, run).items
    assert sample.data["prompt"] == "a\ufffdb"
    assert sample.data["more"] == {"deep": ["\ufffd"]}
    assert [len(line.line) for line in lines] == [10, ingest.LINE_LIMIT]


def test_log_lines_are_stored_once_by_their_number(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    with ledger.factory.begin() as s:
        assert ingest.logs(s, claim.fence, 0, ["a", "b"]) == 2
    with ledger.factory.begin() as s:
        assert ingest.logs(s, claim.fence, 1, ["b", "c"]) == 1
        assert ingest.logs(s, claim.fence, 0, ["a"]) == 0
    with ledger.factory.begin() as s:
        assert [line.line for line in feeds.logs(s, run).items] == ["a", "b", "c"]
        assert s.scalars(select(LogLine.no).order_by(LogLine.no)).all() == [0, 1, 2]


def test_nothing_is_stored_after_the_attempt_has_ended(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    ledger.finish(claim.fence, Reason.KILLED)
    with pytest.raises(FenceLost):
        store(ledger, claim, numbered(metric(0, loss=1.0)))
    with pytest.raises(FenceLost), ledger.factory.begin() as s:
        ingest.logs(s, claim.fence, 0, ["late"])
    assert stored(ledger) == []


def test_pages_of_events_are_complete_and_in_the_order_of_ids(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim, numbered(*[metric(i, loss=1.0) for i in range(5)]))
    with ledger.factory.begin() as s:
        whole = feeds.events(s, run, limit=1000).items
        cursor, pieces = 0, []
        while page := feeds.events(s, run, after=cursor, limit=2).items:
            pieces += page
            cursor = page[-1].id
        assert pieces == whole
        assert [e.kind for e in whole][:4] == ["run_submitted", "stage_status", "stage_status", "run_status"]
        assert all(e.stage == "data" and e.attempt == 1 for e in whole if e.kind == "metric")
        assert s.get_one(Stage, claim.fence.stage_id).signs_of_life_at is not None


def test_deleted_checkpoints_are_no_longer_offered(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim, numbered(artifact("tokenizer"), checkpoint(10), checkpoint(20), checkpoint_deleted(10)))
    with ledger.factory.begin() as s:
        assert [c.step for c in views.checkpoints(s, run)] == [20]
    ledger.finish(claim.fence, Reason.KILLED)
    until(lambda: ledger.dispatch() == ["data"], "the retry")
    retried = ledger.claim(run, "data", "w")
    assert retried is not None
    assert [c.step for c in retried.checkpoints] == [20]


def test_a_promoted_checkpoint_that_its_stage_deletes_is_no_longer_served(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    batch = numbered(artifact("tokenizer"), checkpoint(10), checkpoint_deleted(10))
    store(ledger, claim, batch[:2])
    with ledger.factory.begin() as s:
        (saved,) = views.checkpoints(s, run)
        promotion.promote(s, saved.id)
        assert [m.id for m in views.models(s)] == [saved.id]
    store(ledger, claim, batch)
    with ledger.factory.begin() as s:
        assert views.models(s) == []
        with pytest.raises(Conflict, match="deleted to free disk space"):
            promotion.promote(s, saved.id)
