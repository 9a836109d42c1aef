"""A worker that a test drives: it claims stages and reports what the test tells it to, through the ledger's own functions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from controlplane import claims, db, dispatcher, ingest, workers
from controlplane.lifecycle import Reason
from controlplane.models import Stage


@dataclass
class ManualWorker:
    """One worker for each queue, with 50 slots."""

    ledger: db.SessionFactory
    last_seq: dict[int, int] = field(default_factory=dict)  # attempt id -> number of the last event reported

    def __post_init__(self) -> None:
        with self.ledger.begin() as session:
            for queue in ("cpu", "gpu"):
                workers.register(session, f"manual-{queue}", queue=queue, hostname="here", slots=50)

    def claim(self, run_id: str, name: str) -> claims.Claim:
        """Claim a stage and report it as started, as soon as it is ready."""
        deadline = time.monotonic() + 10
        while True:
            dispatcher.tick(self.ledger, lambda stage_id, queue: None)
            with self.ledger.begin() as session:
                stage = session.scalars(select(Stage).where(Stage.run_id == run_id, Stage.name == name)).one()
                claim = claims.claim(session, stage.id, f"manual-{stage.queue}")
                if claim is not None:
                    claims.started(session, claim.fence, process={})
                    return claim
            assert time.monotonic() < deadline, f"{name} of {run_id} is {stage.status}, not ready"
            time.sleep(0.02)

    def report(self, claim: claims.Claim, kind: str, **data: Any) -> None:
        seq = self.last_seq.get(claim.fence.attempt_id, -1) + 1
        self.last_seq[claim.fence.attempt_id] = seq
        with self.ledger.begin() as session:
            ingest.events(session, claim.fence, [{"v": 1, "seq": seq, "t": time.time(), "kind": kind, **data}])

    def log(self, claim: claims.Claim, first: int, *lines: str) -> None:
        with self.ledger.begin() as session:
            ingest.logs(session, claim.fence, first, lines)

    def finish(self, claim: claims.Claim, reason: Reason = Reason.COMPLETED, message: str = "") -> None:
        with self.ledger.begin() as session:
            claims.finish(session, claim.fence, reason, message=message)

    def complete(self, run_id: str, name: str, **paths: str) -> None:
        """Claim a stage, publish all its outputs and finish it. `paths` gives outputs a real directory, by name."""
        claim = self.claim(run_id, name)
        for output in claim.outputs:
            path = paths.get(output, f"/artifacts/{run_id}/{name}/{output}")
            self.report(claim, "artifact", name=output, path=path, sha256="ab" * 32)
            if output == "model":
                self.report(claim, "checkpoint", step=60, path=path, sha256="cd" * 32, bytes=123, final=True, val_bpb=1.25)
        self.finish(claim)
