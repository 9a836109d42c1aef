"""The ledger as tests use it: one short method per common action. They only call the ledger's public functions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from controlplane import claims, dispatcher, ingest, runs, workers
from controlplane.claims import Claim, Fence
from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Attempt, Event, Run, Stage
from controlplane.timing import Timing
from nanochat.config import recipe

QUICK = Timing(
    lease_ttl=0.2,
    lease_grace=0.0,
    worker_silent_after=0.1,
    redeliver_after=0.2,
    backoff=(0.05,),
    storage_backoff=(0.05,),
    stall_after=0.3,
)


class Ledger:
    """`calls` collects the wake-up calls of the dispatcher, as (stage id, queue)."""

    def __init__(self, factory: SessionFactory, timing: Timing = QUICK):
        self.factory, self.timing = factory, timing
        self.calls: list[tuple[int, str]] = []
        self._clock = 1_700_000_000.0

    def submit(self, **overrides: Any) -> str:
        with self.factory.begin() as s:
            return runs.submit(s, recipe.resolve("tiny", overrides)).run.id

    def worker(self, name: str, queue: str, slots: int = 1) -> str:
        with self.factory.begin() as s:
            workers.register(s, name, queue=queue, hostname="here", slots=slots)
        return name

    def dispatch(self) -> list[str]:
        """Tick the dispatcher once. Returns the names of the stages that it sent calls for."""
        before = len(self.calls)
        dispatcher.tick(self.factory, lambda stage_id, queue: self.calls.append((stage_id, queue)), timing=self.timing)
        return [self.name_of(stage_id) for stage_id, _ in self.calls[before:]]

    def claim(self, run_id: str, stage: str, worker: str) -> Claim | None:
        with self.factory.begin() as s:
            return claims.claim(s, self.id_of(run_id, stage), worker, timing=self.timing)

    def begin(self, run_id: str, stage: str, worker: str, resumed_from_step: int | None = None) -> Claim:
        """Claim a stage and report its processes as started."""
        claim = self.claim(run_id, stage, worker)
        assert claim is not None
        with self.factory.begin() as s:
            claims.started(s, claim.fence, process={}, resumed_from_step=resumed_from_step)
        return claim

    def report(self, fence: Fence, *events: dict[str, Any]) -> int:
        """Store events, numbered from the attempt's last one on."""
        with self.factory.begin() as s:
            seq = s.get_one(Attempt, fence.attempt_id).event_seq + 1
            batch = [{"v": 1, "seq": seq + i, "t": self.next_time(), **e} for i, e in enumerate(events)]
            return ingest.events(s, fence, batch)

    def publish(self, fence: Fence, *names: str) -> None:
        self.report(fence, *[artifact(name, fence.attempt_no) for name in names])

    def finish(self, fence: Fence, reason: Reason = Reason.COMPLETED) -> StageStatus:
        with self.factory.begin() as s:
            return claims.finish(s, fence, reason, timing=self.timing)

    def complete(self, run_id: str, stage: str, worker: str, *events: dict[str, Any]) -> Claim:
        """Dispatch and claim a stage, report the events, publish all its outputs and finish it."""
        self.dispatch()
        claim = self.begin(run_id, stage, worker)
        self.report(claim.fence, *events, *[artifact(name, claim.fence.attempt_no) for name in claim.outputs])
        assert self.finish(claim.fence) is StageStatus.SUCCEEDED
        return claim

    def id_of(self, run_id: str, stage: str) -> int:
        with self.factory.begin() as s:
            return s.scalars(select(Stage.id).where(Stage.run_id == run_id, Stage.name == stage)).one()

    def name_of(self, stage_id: int) -> str:
        with self.factory.begin() as s:
            return s.get_one(Stage, stage_id).name

    def stage(self, run_id: str, stage: str) -> Stage:
        with self.factory.begin() as s:
            return s.get_one(Stage, self.id_of(run_id, stage))

    def attempt(self, fence: Fence) -> Attempt:
        with self.factory.begin() as s:
            return s.get_one(Attempt, fence.attempt_id)

    def run(self, run_id: str) -> Run:
        with self.factory.begin() as s:
            return s.get_one(Run, run_id)

    def moves(self, run_id: str, stage: str) -> list[str]:
        """The statuses that a stage went through, from its events."""
        query = select(Event).where(Event.stage_id == self.id_of(run_id, stage), Event.kind == "stage_status")
        with self.factory.begin() as s:
            return [e.data["to"] for e in s.scalars(query.order_by(Event.id))]

    def next_time(self) -> float:
        self._clock += 1.0
        return self._clock


def artifact(name: str, attempt: int = 1) -> dict[str, Any]:
    return {"kind": "artifact", "name": name, "path": f"/runs/{attempt}/{name}", "sha256": f"{attempt:064x}"}


def checkpoint(step: int, *, final: bool = False, attempt: int = 1) -> dict[str, Any]:
    return {
        "kind": "checkpoint",
        "step": step,
        "path": f"/runs/{attempt}/checkpoints/step_{step:06d}",
        "sha256": f"{step:064x}",
        "bytes": 1000 + step,
        "final": final,
        "val_bpb": 1.0,
    }


def checkpoint_deleted(step: int, *, attempt: int = 1) -> dict[str, Any]:
    return {"kind": "checkpoint_deleted", "step": step, "path": checkpoint(step, attempt=attempt)["path"]}


def metric(step: int, **values: float | str) -> dict[str, Any]:
    return {"kind": "metric", "step": step, "values": values}
