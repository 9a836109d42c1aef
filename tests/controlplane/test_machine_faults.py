"""Random histories with faults: calls come back from the dead, reports arrive twice, workers and loops restart, training resumes.

It adds rules to the machine of `test_machine`, and the invariants that concern what a stage reported.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, multiple, rule, run_state_machine_as_test
from sqlalchemy import func, select, update

from controlplane import claims, ingest, metrics, reaper, workers
from controlplane.claims import Claim, Fence
from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason, StageStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Checkpoint, Event, Loop, MetricPoint, Stage, Worker
from nanochat.contract.contract import seal
from services.worker.resume import furthest_intact
from tests.controlplane.ledger import checkpoint, checkpoint_deleted, metric
from tests.controlplane.test_machine import SLOW, WORKERS, LedgerMachine

SHARDS = ("model.safetensors", "optimizer.0.safetensors", "optimizer.1.safetensors")
WAYS = st.sampled_from(["gone", "truncated", "all gone"])


class FaultyMachine(LedgerMachine):
    def __init__(self) -> None:
        super().__init__()
        self.at: dict[int, int] = {}  # attempt -> the last step that it has reported
        self.store = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        self.whole: dict[Path, int] = {}  # checkpoints on the store of which no file is lost, and their steps

    # -- messages --

    @rule(target=LedgerMachine.held, data=st.data())
    def resurrect(self, data: st.DataObject) -> Any:
        """A call for any stage that ever was, finished or not, reaches any worker of its queue."""
        with self.factory.begin() as s:
            stages = {x.id: x for x in s.scalars(select(Stage).order_by(Stage.id))}
        stage = stages[data.draw(st.sampled_from(sorted(stages)))]
        worker = data.draw(st.sampled_from([name for name, of, _ in WORKERS if of == stage.queue]))
        claim = self.claim(stage.id, worker)
        if claim is None:
            return multiple()
        assert stage.status is StageStatus.QUEUED
        assert [c.step for c in claim.checkpoints] == sorted((c.step for c in claim.checkpoints), reverse=True)
        return claim.fence

    # -- what a stage reports --

    @rule(fence=LedgerMachine.held, data=st.data())
    def resume(self, fence: Fence, data: st.DataObject) -> None:
        """The processes start from a checkpoint that an earlier attempt saved, or from the beginning."""
        if not self.is_current(fence) or fence.attempt_id in self.at:
            return
        with self.factory.begin() as s:
            query = select(Checkpoint.step).where(Checkpoint.stage_id == fence.stage_id, Checkpoint.deleted_at.is_(None))
            step = data.draw(st.sampled_from([None, *sorted(set(s.scalars(query)))]))
        with self.factory.begin() as s:
            claims.started(s, fence, process={}, resumed_from_step=step)
        self.at[fence.attempt_id] = step or 0

    @rule(fence=LedgerMachine.held, steps=st.integers(1, 20), copies=st.integers(1, 3))
    def train(self, fence: Fence, steps: int, copies: int) -> None:
        """Steps are reported; the batch arrives once or several times, and then in parts."""
        if not self.is_current(fence) or fence.attempt_id not in self.at:
            return
        first = self.at[fence.attempt_id] + 1
        with self.factory.begin() as s:
            seq = s.get_one(Attempt, fence.attempt_id).event_seq + 1
        batch = [
            {
                "v": 1,
                "seq": seq + i,
                "t": self.ledger.next_time(),
                **metric(first + i, loss=fence.attempt_no * 1000 + first + i),
            }
            for i in range(steps)
        ]
        with self.factory.begin() as s:
            assert ingest.events(s, fence, batch) == steps
        for copy in range(1, copies):
            with self.factory.begin() as s:
                assert ingest.events(s, fence, batch[copy:]) == 0
        self.at[fence.attempt_id] = first + steps - 1

    @rule(fence=LedgerMachine.held, reported=st.booleans())
    def save_here(self, fence: Fence, reported: bool) -> None:
        """A checkpoint of three files. The worker may die before it can report it."""
        step = self.at.get(fence.attempt_id)
        if not self.is_current(fence) or not step or (folder := self.folder(fence, step)).exists():
            return
        folder.mkdir(parents=True)
        for name in SHARDS:
            (folder / name).write_text(f"{name} of step {step}, attempt {fence.attempt_no}")
        sealed = seal(folder)
        self.whole[folder] = step
        if reported:
            self.ledger.report(fence, {**checkpoint(step), "path": sealed.path, "sha256": sealed.sha256})

    @rule(data=st.data(), shard=st.sampled_from(SHARDS), how=WAYS)
    def damage(self, data: st.DataObject, shard: str, how: str) -> None:
        """The disk loses a part of a checkpoint."""
        if not self.whole:
            return
        self.spoil(data.draw(st.sampled_from(sorted(self.whole))), shard, how)

    def spoil(self, folder: Path, shard: str, how: str) -> None:
        self.whole.pop(folder, None)
        if how == "all gone":
            shutil.rmtree(folder)
        elif how == "gone":
            (folder / shard).unlink()
        else:
            os.truncate(folder / shard, 3)

    @rule(fence=LedgerMachine.held)
    def delete_oldest(self, fence: Fence) -> None:
        if not self.is_current(fence):
            return
        with self.factory.begin() as s:
            mine = select(Checkpoint).where(Checkpoint.attempt_id == fence.attempt_id, Checkpoint.deleted_at.is_(None))
            oldest = s.scalars(mine.order_by(Checkpoint.step)).first()
        if oldest is not None:
            self.ledger.report(fence, {**checkpoint_deleted(oldest.step), "path": oldest.path})
            shutil.rmtree(oldest.path, ignore_errors=True)
            self.whole.pop(Path(oldest.path), None)

    @rule(target=LedgerMachine.held, data=st.data(), shard=st.sampled_from(SHARDS), how=WAYS, reported=st.booleans())
    def lose(self, data: st.DataObject, shard: str, how: str, reported: bool) -> Any:
        """Training saves twice, the disk loses a part of the second checkpoint, the worker is lost, and the next attempt begins."""
        self.ledger.dispatch()
        with self.factory.begin() as s:
            stage = s.scalars(select(Stage).where(Stage.status == StageStatus.QUEUED).order_by(Stage.id)).first()
        if stage is None:
            return multiple()
        worker = data.draw(st.sampled_from([name for name, of, _ in WORKERS if of == stage.queue]))
        if (claim := self.claim(stage.id, worker)) is None:
            return multiple()
        fence = claim.fence
        self.resume(fence, data)
        for _ in range(2):
            self.train(fence, steps=3, copies=1)
            self.save_here(fence, reported)
        self.spoil(self.folder(fence, self.at[fence.attempt_id]), shard, how)
        self.fenced(fence, lambda s: claims.finish(s, fence, Reason.WORKER_LOST, timing=SLOW))
        self.wait()
        self.ledger.dispatch()
        claim = self.claim(stage.id, worker)
        return claim.fence if claim else multiple()

    def folder(self, fence: Fence, step: int) -> Path:
        return self.store / str(fence.stage_id) / f"attempt-{fence.attempt_no}" / "checkpoints" / f"step_{step:06d}"

    def claim(self, stage_id: int, worker: str) -> Claim | None:
        """I12: an attempt resumes from the furthest checkpoint that has all its shards, reported or not."""
        claim = super().claim(stage_id, worker)
        if claim is not None:
            stage = self.store / str(stage_id)
            chosen = furthest_intact(claim, stage / f"attempt-{claim.fence.attempt_no}")
            steps = [step for folder, step in self.whole.items() if stage in folder.parents]
            assert (chosen.step if chosen else None) == max(steps, default=None)
        return claim

    def teardown(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)

    # -- restarts --

    @rule(which=st.sampled_from(range(len(WORKERS))))
    def restart_worker(self, which: int) -> None:
        """kill -9 of a worker, which starts again at once and ends what its predecessor held."""
        worker, queue, slots = WORKERS[which]
        self.ledger.worker(worker, queue, slots)
        with self.factory.begin() as s:
            held = workers.held(s, worker)
        for attempt in held:
            with self.factory.begin() as s:
                claims.finish(s, attempt.fence, Reason.WORKER_LOST, timing=SLOW)

    @rule()
    def outage(self) -> None:
        """The database was away for an hour: all leases and heartbeats look old, and nothing may be reaped for that."""
        with self.factory.begin() as s:
            live = s.scalar(select(func.count()).where(Attempt.finished_at.is_(None)))
            s.execute(update(Worker).values(heartbeat_at=func.now() - seconds(3600)))
            s.execute(update(Attempt).where(Attempt.finished_at.is_(None)).values(lease_expires_at=func.now() - seconds(3600)))
            s.execute(update(Loop).values(ticked_at=func.now() - seconds(3600), steady_since=func.now() - seconds(7200)))
        assert reaper.tick(self.factory, timing=SLOW) == 0
        with self.factory.begin() as s:
            assert s.scalar(select(func.count()).where(Attempt.finished_at.is_(None))) == live
            # Every worker comes back and renews.
            s.execute(update(Worker).values(heartbeat_at=func.now()))
            s.execute(update(Attempt).where(Attempt.finished_at.is_(None)).values(lease_expires_at=func.now() + seconds(60)))

    # -- invariants --

    @invariant()
    def a_curve_has_one_value_a_step(self) -> None:
        """I11: of each step, the value of the newest attempt that went over it; steps beyond a resume are gone."""
        curves: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
        with self.factory.begin() as s:
            points: dict[int, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
            for p in s.scalars(select(MetricPoint)):
                points[p.stage_id][p.attempt_no][p.step] = p.value
            started = select(Attempt, Stage).join(Stage).where(Attempt.started_at.is_not(None)).order_by(Attempt.no)
            for attempt, stage in s.execute(started):
                curve = curves[stage.run_id, stage.name]
                resumed = -1 if attempt.resumed_from_step is None else attempt.resumed_from_step
                for step in [step for step in curve if step > resumed]:
                    del curve[step]
                curve.update(points[stage.id][attempt.no])
            for run_id in self.run_ids:
                shown = metrics.metrics(s, run_id, max_points=10_000).series
                expected = {name: curve for (of, name), curve in curves.items() if of == run_id and curve}
                assert {x.stage: [(p.step, p.last) for p in x.points] for x in shown} == {
                    name: sorted(curve.items()) for name, curve in expected.items()
                }

    @invariant()
    def events_are_stored_once(self) -> None:
        with self.factory.begin() as s:
            query = select(Event.attempt_id, func.count(), func.count(Event.seq.distinct()), func.max(Event.seq))
            for _, rows, distinct, last in s.execute(query.where(Event.seq.is_not(None)).group_by(Event.attempt_id)):
                assert rows == distinct == last + 1

    @invariant()
    def reservations_fit(self) -> None:
        """I10: the live attempts of a worker are at most its slots."""
        with self.factory.begin() as s:
            query = select(Worker.slots, func.count()).join(Attempt, Attempt.worker_id == Worker.id)
            for slots, live in s.execute(query.where(Attempt.finished_at.is_(None)).group_by(Worker.id, Worker.slots)):
                assert live <= slots


def test_invariants_hold_under_any_history_of_faults(sessions: SessionFactory) -> None:
    machine = type("Machine", (FaultyMachine,), {"factory": sessions})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=8, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
        ),
    )
