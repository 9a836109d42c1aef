"""Draining a worker through the API and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from controlplane import workers
from tests.api.manual_worker import ManualWorker
from tests.api.server import serving


def test_a_drained_worker_takes_no_stage_until_it_is_let(
    database_url: str, redis_url: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(database_url, redis_url, home) as api:
        monkeypatch.setenv("NANOCHAT_API_URL", api.url)
        monkeypatch.setenv("NANOCHAT_API_KEY", api.key)
        worker, client = ManualWorker(api.ledger), api.client()
        run = client.submit("tiny").id
        running = worker.claim(run, "data")
        shown = CliRunner().invoke(app, ["worker", "drain", "manual-cpu"]).output
        assert "draining" in shown
        with api.ledger.begin() as session:
            workers.beat(session, "manual-cpu")  # a heartbeat does not end it
        for output in ("tok_shards", "shards", "tasks", "core", "results"):
            worker.report(running, "artifact", name=output, path=f"/a/{output}", sha256="ab" * 32)
        worker.finish(running)  # what runs may finish
        with pytest.raises(AssertionError, match="tok_train of"):
            worker.claim(run, "tok_train")
        assert CliRunner().invoke(app, ["worker", "undrain", "manual-cpu"]).exit_code == 0
        worker.claim(run, "tok_train")
        unknown = api.http.put("/v1/workers/nobody/drain", json={"running": "FINISH"})
        assert (unknown.status_code, unknown.json()["type"].rpartition(":")[2]) == (404, "worker-not-found")
        assert api.http.put("/v1/workers/manual-cpu/drain", json={"running": "SOON"}).status_code == 422
