"""A worker driven by the test: claims the stages of a run and reports their events through the ledger's own functions.

It trains nothing, so a page with every kind of stage on it is there within a second.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from controlplane import claims, db, ingest, workers
from controlplane.claims import Claim
from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Stage
from nanochat.contract.contract import Artifact, seal

DEADLINE_S = 20.0


@dataclass
class ManualWorker:
    """Works on the stages of one run. `artifacts` maps (stage, name) to real directories to publish."""

    ledger: db.SessionFactory
    run_id: str
    folder: Path
    artifacts: dict[tuple[str, str], Artifact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with self.ledger.begin() as session:
            for queue in ("cpu", "gpu"):
                workers.register(
                    session, f"manual-{queue}", queue=queue, hostname="test", slots=64
                )  # tests leave stages at work

    def begin(self, stage: str, *, resumed_from_step: int | None = None) -> Work:
        """Claim the stage, once the dispatcher has queued it."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            with self.ledger.begin() as session:
                row = session.scalars(select(Stage).where(Stage.run_id == self.run_id, Stage.name == stage)).one()
                if row.status is StageStatus.QUEUED:
                    claim = claims.claim(session, row.id, f"manual-{row.queue}")
                    if claim is not None:
                        claims.started(session, claim.fence, process={}, resumed_from_step=resumed_from_step)
                        return Work(self, claim)
            time.sleep(0.05)
        raise AssertionError(f"{stage} was not queued within {DEADLINE_S} s")

    def finish(self, *stages: str) -> None:
        """Take each stage from its claim to its success. Training stages report metrics."""
        for name in stages:
            work = self.begin(name)
            if name in ("base_train", "mid_train", "sft"):
                work.train(steps=40)
            work.log(f"{name} says hello", f"{name} is done")
            work.succeed()


@dataclass
class Work:
    """One attempt at a stage."""

    worker: ManualWorker
    claim: Claim
    seq: int = 0
    lines: int = 0

    def tell(self, *events: dict[str, Any]) -> None:
        batch = [{"v": 1, "seq": self.seq + i, "t": time.time(), **event} for i, event in enumerate(events)]
        self.seq += len(batch)
        with self.worker.ledger.begin() as session:
            ingest.events(session, self.claim.fence, batch)

    def log(self, *lines: str) -> None:
        with self.worker.ledger.begin() as session:
            ingest.logs(session, self.claim.fence, self.lines, lines)
        self.lines += len(lines)

    def train(self, steps: int, total: int | None = None) -> None:
        total = total or steps
        for step in range(steps):
            values = {"loss": 8.0 * math.exp(-step / total) + 0.1 * math.sin(step), "tok_per_s": 5200.0 + step}
            values |= {"val_bpb": 3.0 * math.exp(-step / total)} if step % 10 == 0 else {}
            self.tell({"kind": "metric", "step": step, "values": values})
        self.tell({"kind": "progress", "done": steps, "total": total, "unit": "step", "eta_s": float(total - steps)})

    def succeed(self) -> None:
        for name in self.claim.outputs:
            self.publish(name)
        self._end(Reason.COMPLETED)

    def fail(self, message: str) -> None:
        self._end(Reason.BAD_INPUT, message)

    def publish(self, name: str) -> None:
        artifact = self.worker.artifacts.get((self.claim.stage, name)) or self._made(name)
        self.tell({"kind": "artifact", "name": name, "path": artifact.path, "sha256": artifact.sha256})
        if name == "model":
            size = sum(p.stat().st_size for p in artifact.dir.iterdir())
            checkpoint = {"step": 40, "path": artifact.path, "sha256": artifact.sha256, "bytes": size, "final": True}
            self.tell({"kind": "checkpoint", **checkpoint})

    def _made(self, name: str) -> Artifact:
        directory = self.worker.folder / self.claim.stage / name
        directory.mkdir(parents=True)
        if name == "report":
            (directory / "report.md").write_text(
                "# Report card\n\n| Metric | BASE | SFT |\n|---|---|---|\n| bpb | 1.9 | 1.2 |\n"
            )
        return seal(directory)

    def _end(self, reason: Reason, message: str = "") -> None:
        with self.worker.ledger.begin() as session:
            claims.finish(session, self.claim.fence, reason, message=message)
