"""Garbage collection through the API and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from controlplane.lifecycle import Reason
from tests.api.manual_worker import ManualWorker
from tests.api.server import serving


def test_gc_lists_and_then_marks(database_url: str, redis_url: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(database_url, redis_url, home) as api:
        monkeypatch.setenv("NANOCHAT_API_URL", api.url)
        monkeypatch.setenv("NANOCHAT_API_KEY", api.key)
        assert "every checkpoint is needed" in CliRunner().invoke(app, ["gc"]).output
        worker, client = ManualWorker(api.ledger), api.client()
        run = client.submit("tiny").id
        worker.complete(run, "data")
        worker.complete(run, "tok_train")
        claim = worker.claim(run, "base_train")
        for step in (10, 20, 30):
            folder = str(home / f"step_{step}")
            worker.report(claim, "checkpoint", step=step, path=folder, sha256="ab" * 32, bytes=2**30, final=False, val_bpb=None)
        worker.finish(claim, Reason.NONFINITE)
        shown = CliRunner().invoke(app, ["gc", "--dry-run"]).output
        assert [entry["outcome"] for entry in api.http.get("/v1/audit", params={"limit": 1}).json()["items"]] == ["dry run"]
        assert "1 checkpoint, 1.00 GiB. Nothing was changed." in shown
        assert client.collect_garbage(dry_run=True).items[0].delete_after is None
        assert "not marked" not in CliRunner().invoke(app, ["gc"]).output
        [marked] = client.collect_garbage(dry_run=True).items
        assert (marked.run_id, marked.stage, marked.step) == (run, "base_train", 10)
        assert marked.delete_after is not None
        refused = api.http.post("/v1/gc", json={})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "dry_run")
