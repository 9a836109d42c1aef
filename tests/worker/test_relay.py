"""The relay with a real ledger and files that a stage could leave, however broken they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from controlplane import feeds, ingest, views
from controlplane.claims import Claim
from controlplane.db import SessionFactory
from controlplane.models import LogLine
from controlplane.transitions import gate
from services.worker.relay import Relay
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import started_run
from tests.nanochat.contract.test_lines import BAD


@pytest.fixture
def ledger(sessions: SessionFactory) -> Ledger:
    return Ledger(sessions)


def relay(ledger: Ledger, claim: Claim, out: Path) -> Relay:
    return Relay(ledger.factory, claim.fence, out, 0.05)


def event(seq: int, **fields: Any) -> bytes:
    return json.dumps({"v": 1, "seq": seq, "t": 1_700_000_000.0 + seq, **fields}).encode() + b"\n"


def test_bad_lines_are_reported_on_the_attempt_and_all_others_are_stored_once(ledger: Ledger, tmp_path: Path) -> None:
    run, claim = started_run(ledger)
    good = [event(n, kind="metric", step=n, values={"loss": 1.0}) for n in range(len(BAD) + 1)]
    mixed = [line for pair in zip(good, BAD.values(), strict=False) for line in (pair[0], pair[1] + b"\n")]
    (tmp_path / "events.jsonl").write_bytes(b"".join(mixed) + good[-1])
    relay(ledger, claim, tmp_path).flush()
    relay(ledger, claim, tmp_path).flush()  # a worker that starts again reads the file from its beginning
    with ledger.factory.begin() as s:
        attempt = views.run_view(s, run).stages[0].attempts[0]
        reports = feeds.events(s, run, kinds=["line_quarantined"]).items
        metrics = feeds.events(s, run, kinds=["metric"]).items
    assert attempt.quarantined == len(BAD)
    assert len(metrics) == len(good)
    assert len(reports) == min(len(BAD), ingest.REPORTED)
    assert {(r.stage, r.attempt) for r in reports} == {("data", 1)}
    assert (reports[0].data["line"], reports[0].data["reason"]) == (1, "has a field 't' that cannot be stored")


def test_text_that_postgres_cannot_store_costs_a_character_and_not_the_event(ledger: Ledger, tmp_path: Path) -> None:
    run, claim = started_run(ledger)
    (tmp_path / "events.jsonl").write_bytes(
        event(0, kind="log", level="info", message="a\x00b\ud800c", more=[float("1e300")])
        + b'{"v": 1, "seq": 1, "t": 2.0, "kind": "log", "level": "info", "message": "x", "huge": 1e999}\n'
        + event(2, kind="metric", step=1, values={"k\ud800": 1.0})
    )
    relay(ledger, claim, tmp_path).flush()
    with ledger.factory.begin() as s:
        first, second = feeds.events(s, run, kinds=["log"]).items
        assert views.run_view(s, run).stages[0].latest == {"k\ufffd": 1.0}
    assert first.data["message"] == "a\ufffdb\ufffdc"
    assert second.data["huge"] == "inf"


def test_a_flood_of_lines_needs_no_lock_of_the_run_and_does_not_fill_the_ledger(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "LINES_KEPT", 5000)
    monkeypatch.setattr(ingest, "LINES_DROPPED", 1000)
    run, claim = started_run(ledger)
    (tmp_path / "stdout.log").write_bytes(b"\n" * 30_000 + b"caf\xe9 \x00\n" + b"x" * 10_000 + b"\n")
    with ledger.factory.begin() as other, gate(other, run):  # what cancel, retry and every status change hold
        relay(ledger, claim, tmp_path).flush()
    with ledger.factory.begin() as s:
        kept = s.scalar(select(func.count()).select_from(LogLine))
        page = feeds.logs(s, run, limit=10)
        last = feeds.logs(s, run, after=page.items[-1].id, limit=10_000)
    assert kept is not None
    assert 5000 <= kept < 6000 + 2000
    (gap,) = page.gaps
    assert (gap.stage, gap.attempt, gap.lines) == ("data", 1, page.items[0].no)
    assert last.gaps == []
    assert [x.no for x in page.items + last.items] == list(range(gap.lines, 30_002))
    assert last.items[-2].line == "caf\ufffd \ufffd"
    assert (len(last.items[-1].line), last.items[-1].line[-1]) == (ingest.LINE_LIMIT, "…")
