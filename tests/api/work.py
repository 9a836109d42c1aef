"""A worker by hand: it claims stages and says what the test wants said, through the ledger's own functions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from controlplane import claims, db, dispatcher, ingest, workers
from controlplane.lifecycle import Reason
from controlplane.models import Stage


@dataclass
class Hand:
    """One worker a queue; `take` claims a named stage of a run once it is ready."""

    ledger: db.SessionFactory
    held: dict[str, claims.Claim] = field(default_factory=dict)
    said: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.ledger.begin() as session:
            for queue in ("cpu", "gpu"):
                workers.register(session, f"hand-{queue}", queue=queue, hostname="here", slots=50)

    def take(self, run_id: str, name: str) -> claims.Claim:
        deadline = time.monotonic() + 10
        while True:
            dispatcher.tick(self.ledger, lambda stage_id, queue: None)
            with self.ledger.begin() as session:
                stage = session.scalars(select(Stage).where(Stage.run_id == run_id, Stage.name == name)).one()
                claim = claims.claim(session, stage.id, f"hand-{stage.queue}")
                if claim is not None:
                    claims.started(session, claim.fence, process={})
                    return claim
            assert time.monotonic() < deadline, f"{name} of {run_id} is {stage.status}, not ready"
            time.sleep(0.02)

    def say(self, claim: claims.Claim, kind: str, **data: Any) -> None:
        seq = self.said.get(claim.fence.attempt_id, -1) + 1
        self.said[claim.fence.attempt_id] = seq
        with self.ledger.begin() as session:
            ingest.events(session, claim.fence, [{"v": 1, "seq": seq, "t": time.time(), "kind": kind, **data}])

    def print(self, claim: claims.Claim, first: int, *lines: str) -> None:
        with self.ledger.begin() as session:
            ingest.logs(session, claim.fence, first, lines)

    def end(self, claim: claims.Claim, reason: Reason = Reason.COMPLETED, message: str = "") -> None:
        with self.ledger.begin() as session:
            claims.finish(session, claim.fence, reason, message=message)

    def do(self, run_id: str, name: str, **paths: str) -> None:
        """Take a stage, publish every output it declares and succeed. `paths` places an artifact somewhere real."""
        claim = self.take(run_id, name)
        for output in claim.outputs:
            path = paths.get(output, f"/artifacts/{run_id}/{name}/{output}")
            self.say(claim, "artifact", name=output, path=path, sha256="ab" * 32)
            if output == "model":
                self.say(claim, "checkpoint", step=60, path=path, sha256="cd" * 32, bytes=123, final=True, val_bpb=1.25)
        self.end(claim)
