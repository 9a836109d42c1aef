"""Random histories of the whole ledger: workers race, messages are lost or doubled, leases expire, users cancel.

The state machine predicts little. After every step it checks invariants that must hold whatever happens.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from controlplane import claims, reaper, runs
from controlplane.claims import Claim, Fence
from controlplane.db import SessionFactory
from controlplane.errors import Conflict, FenceLost
from controlplane.lifecycle import (
    LIVE_ATTEMPT,
    TRANSITIONS,
    AttemptStatus,
    Desired,
    Reason,
    RunStatus,
    StageState,
    StageStatus,
    derive,
)
from controlplane.loops import seconds
from controlplane.models import Attempt, Event, Loop, Run, Stage, Worker
from controlplane.timing import Timing
from tests.controlplane.ledger import Ledger, artifact, checkpoint

# Long enough that nothing expires by itself: time passes only in `expire` and `wait`.
SLOW = Timing(lease_ttl=60.0, lease_grace=30.0, worker_silent_after=20.0, redeliver_after=40.0, backoff=(10.0,))
WORKERS = (("w1", "cpu", 1), ("w2", "cpu", 2), ("g1", "gpu", 1))


class LedgerMachine(RuleBasedStateMachine):
    factory: SessionFactory

    held = Bundle("held")
    past = Bundle("past")

    @initialize()
    def start(self) -> None:
        with self.factory.begin() as s:
            tables = "run, stage, attempt, event, worker, loop, artifact, checkpoint, metric_point, metric_chunk, log_line"
            s.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        self.ledger = Ledger(self.factory, SLOW)
        self.run_ids: list[str] = []
        self.messages: list[int] = []
        self.final: dict[int, StageStatus] = {}
        self.cancelled_at: dict[str, int] = {}
        for name, queue, slots in WORKERS:
            self.ledger.worker(name, queue, slots)
        self.submit()
        self.dispatch(2)

    # -- users --

    @precondition(lambda self: len(self.run_ids) < 3)
    @rule()
    def submit(self) -> None:
        self.run_ids.append(self.ledger.submit())

    @rule(data=st.data(), what=st.sampled_from(["resume", "retry", "pause", "resume", "retry", "cancel"]))
    def steer(self, data: st.DataObject, what: str) -> None:
        run_id = data.draw(st.sampled_from(self.run_ids))
        if what == "cancel" and self.attempts_of(run_id) < 2:
            return  # cancelling so early would only cut the history short
        try:
            with self.factory.begin() as s:
                getattr(runs, what)(s, run_id)
        except Conflict:
            return
        if what == "cancel":
            self.cancelled_at[run_id] = self.attempts_of(run_id)
        if what == "retry":
            self.final = {k: v for k, v in self.final.items() if v is not StageStatus.FAILED}

    # -- the platform and its messages --

    @rule(copies=st.sampled_from([0, 1, 1, 2, 3]))
    def dispatch(self, copies: int) -> None:
        """A message may be lost, delivered once, or several times."""
        before = len(self.ledger.calls)
        self.ledger.dispatch()
        self.messages += [stage_id for stage_id, _ in self.ledger.calls[before:]] * copies

    @precondition(lambda self: self.messages)
    @rule(target=held, data=st.data())
    def deliver(self, data: st.DataObject) -> Any:
        stage_id = self.messages.pop(data.draw(st.integers(0, len(self.messages) - 1)))
        with self.factory.begin() as s:
            queue = s.get_one(Stage, stage_id).queue
        worker = data.draw(st.sampled_from([name for name, of, _ in WORKERS if of == queue]))
        claim = self.claim(stage_id, worker)
        return claim.fence if claim else multiple()

    @rule(target=held, data=st.data())
    def take(self, data: st.DataObject) -> Any:
        """Deliver a call at once, and report the processes as started."""
        self.dispatch(1)
        if not self.messages:
            return multiple()
        fence = self.deliver(data)
        if isinstance(fence, Fence):
            self.begin(fence)
        return fence

    @rule()
    def serve(self) -> None:
        """Run a stage from its call to its success, so that histories get beyond the first stages."""
        self.ledger.dispatch()
        with self.factory.begin() as s:
            queued = list(s.scalars(select(Stage).where(Stage.status == StageStatus.QUEUED).order_by(Stage.id)))
        for stage in queued:
            worker = "g1" if stage.queue == "gpu" else "w2"
            if (claim := self.claim(stage.id, worker)) is not None:
                self.publish(claim.fence)
                assert self.ledger.finish(claim.fence) is StageStatus.SUCCEEDED
                return

    @rule(fence=held)
    def begin(self, fence: Fence) -> None:
        self.fenced(fence, lambda s: claims.started(s, fence, process={}))

    @rule(fence=held)
    def heartbeat(self, fence: Fence) -> None:
        self.fenced(fence, lambda s: claims.renew(s, fence, timing=SLOW))

    @rule(fence=held)
    def drain(self, fence: Fence) -> None:
        self.fenced(fence, lambda s: claims.stopping(s, fence, Reason.HOST_DRAIN))

    @rule(fence=held, step=st.integers(1, 50))
    def save(self, fence: Fence, step: int) -> None:
        if self.is_current(fence):
            self.ledger.report(fence, checkpoint(step, attempt=fence.attempt_no))

    @rule(fence=held)
    def publish(self, fence: Fence) -> None:
        if self.is_current(fence):
            with self.factory.begin() as s:
                outputs = s.get_one(Stage, fence.stage_id).outputs
            self.ledger.report(fence, *[artifact(name, fence.attempt_no) for name in outputs])

    @rule(target=past, fence=consumes(held), reason=st.sampled_from(list(Reason)))
    def finish(self, fence: Fence, reason: Reason) -> Fence:
        self.fenced(fence, lambda s: claims.finish(s, fence, reason, timing=SLOW))
        return fence

    @rule(fence=past)
    def write_late(self, fence: Fence) -> None:
        """I3: a write with an old fence changes nothing."""
        for write in (
            lambda s: claims.renew(s, fence),
            lambda s: claims.started(s, fence, process={}),
            lambda s: claims.finish(s, fence, Reason.COMPLETED),
        ):
            with pytest.raises(FenceLost), self.factory.begin() as s:
                write(s)

    @rule(which=st.sampled_from(range(3)))
    def expire(self, which: int) -> None:
        """The worker sends no heartbeat for long, then registers again, without its attempts."""
        worker, queue, slots = WORKERS[which]
        with self.factory.begin() as s:
            s.execute(update(Worker).where(Worker.id == worker).values(heartbeat_at=func.now() - seconds(3600)))
            s.execute(update(Attempt).where(Attempt.worker_id == worker).values(lease_expires_at=func.now() - seconds(3600)))
            s.execute(update(Loop).values(steady_since=func.now() - seconds(3600)))
        reaper.tick(self.factory, timing=SLOW)
        with self.factory.begin() as s:
            s.execute(update(Loop).values(steady_since=func.now() - seconds(3600)))
        reaper.tick(self.factory, timing=SLOW)
        self.ledger.worker(worker, queue, slots)

    @rule()
    def wait(self) -> None:
        """A minute passes: retries and redeliveries become due."""
        with self.factory.begin() as s:
            s.execute(
                update(Stage).values(retry_at=Stage.retry_at - seconds(60), dispatched_at=Stage.dispatched_at - seconds(60))
            )

    # -- invariants --

    @invariant()
    def invariants(self) -> None:
        with self.factory.begin() as s:
            now = Snapshot(s)
        one_live_attempt_per_stage_and_slot(now)
        one_event_per_transition(now)
        no_unfinished_stage_is_stuck(now)
        a_run_has_the_status_derived_from_its_stages(now)
        budgets_hold(now)
        # I4: a finished stage stays finished unless a user retries it.
        for stage_id, status in self.final.items():
            assert now.stages[stage_id].status is status
        self.final = {i: stage.status for i, stage in now.stages.items() if stage.status.is_finished}
        # I5: no attempt starts after CANCEL.
        for run_id, attempts in self.cancelled_at.items():
            assert now.attempts_of(run_id) == attempts

    # -- claims and fences --

    def claim(self, stage_id: int, worker: str) -> Claim | None:
        with self.factory.begin() as s:
            return claims.claim(s, stage_id, worker, timing=SLOW)

    def fenced(self, fence: Fence, write: Any) -> None:
        """The write succeeds if the fence is current, and raises FenceLost otherwise."""
        if self.is_current(fence):
            with self.factory.begin() as s:
                write(s)
        else:
            with pytest.raises(FenceLost), self.factory.begin() as s:
                write(s)

    def is_current(self, fence: Fence) -> bool:
        with self.factory.begin() as s:
            status = s.get_one(Attempt, fence.attempt_id).status
        return isinstance(status, AttemptStatus) and status.is_live

    def attempts_of(self, run_id: str) -> int:
        with self.factory.begin() as s:
            return s.scalar(select(func.count()).select_from(Attempt).join(Stage).where(Stage.run_id == run_id)) or 0


class Snapshot:
    """The whole ledger at one moment."""

    def __init__(self, s: Session):
        self.runs = {r.id: r for r in s.scalars(select(Run))}
        self.stages = {x.id: x for x in s.scalars(select(Stage).order_by(Stage.position))}
        self.live = list(s.scalars(select(Attempt).where(Attempt.status.in_(LIVE_ATTEMPT))))
        self.attempts = list(s.scalars(select(Attempt)))
        self.slots = {w.id: w.slots for w in s.scalars(select(Worker))}
        changes = select(Event).where(Event.kind.in_(["stage_status", "run_status"])).order_by(Event.id)
        self.changes = list(s.scalars(changes))

    def attempts_of(self, run_id: str) -> int:
        return sum(self.stages[a.stage_id].run_id == run_id for a in self.attempts)


def one_live_attempt_per_stage_and_slot(now: Snapshot) -> None:
    """I1, I2: one live attempt per stage and per slot. The live attempt is the newest one."""
    assert len({a.stage_id for a in now.live}) == len(now.live)
    assert len({(a.worker_id, a.slot) for a in now.live}) == len(now.live)
    for attempt in now.live:
        assert attempt.slot < now.slots[attempt.worker_id]
        assert attempt.no == now.stages[attempt.stage_id].attempt_no


def one_event_per_transition(now: Snapshot) -> None:
    """I6: the events of a stage are a path through the transition table to its status; those of a run lead to its status."""
    at = dict.fromkeys(now.stages, StageStatus.PENDING)
    word = dict.fromkeys(now.runs, RunStatus.QUEUED)
    for event in now.changes:
        if event.kind == "run_status":
            assert word[event.run_id] == event.data["from"] != event.data["to"]
            word[event.run_id] = RunStatus(event.data["to"])
        elif event.stage_id is not None:
            to = StageStatus(event.data["to"])
            assert at[event.stage_id] == event.data["from"]
            assert to in TRANSITIONS[at[event.stage_id]]
            at[event.stage_id] = to
    assert at == {i: stage.status for i, stage in now.stages.items()}
    assert word == {i: run.status for i, run in now.runs.items()}


def no_unfinished_stage_is_stuck(now: Snapshot) -> None:
    """I7: every unfinished stage waits for something that will come: a lease, a retry time, the dispatcher or a user."""
    held = {a.stage_id for a in now.live}
    for stage in now.stages.values():
        assert stage.status.is_live == (stage.id in held)
        assert (stage.status is StageStatus.BACKOFF) == (stage.retry_at is not None)
        if stage.status is StageStatus.QUEUED:
            assert stage.queued_at is not None
        if stage.status is StageStatus.PAUSED:
            assert now.runs[stage.run_id].desired is Desired.PAUSE


def a_run_has_the_status_derived_from_its_stages(now: Snapshot) -> None:
    """I8: the stored status of a run is the derived one, and a run has an end time if it is finished."""
    for run in now.runs.values():
        stages = [s for s in now.stages.values() if s.run_id == run.id]
        states = [
            StageState(x.name, x.status, x.queue, x.attempt_no, message=x.message, side=x.outputs == ["results"])
            for x in stages
        ]
        assert derive(states, run.desired)[0] is run.status
        assert (run.finished_at is not None) == run.status.is_finished


def budgets_hold(now: Snapshot) -> None:
    """I9: a stage that has used up its budget of failures is not tried again."""
    for stage in now.stages.values():
        assert stage.failures <= SLOW.max_failures
        if stage.failures == SLOW.max_failures:
            assert stage.status in (StageStatus.FAILED, StageStatus.CANCELLED)


def test_invariants_hold_under_any_history(sessions: SessionFactory) -> None:
    machine = type("Machine", (LedgerMachine,), {"factory": sessions})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
        ),
    )
