"""The gate: the only code that changes the status of a stage or a run, or ends an attempt.

`with gate(session, run_id) as g` locks the run. Each `g.move` is checked against the transition table, applied by a conditional
UPDATE, and writes exactly one event. At the end of the block the run's status is derived from its stages. All of this happens in
one transaction. Locks are always taken in this order: the run, then a worker, then anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from controlplane.errors import IllegalTransition, NotFound
from controlplane.lifecycle import HELD, TRANSITIONS, AttemptStatus, Reason, RunStatus, StageState, StageStatus, derive
from controlplane.models import Attempt, Event, Run, Stage
from nanochat.planning.graph import SIDE_OUTPUTS, called

# A stop request replaces an earlier one unless that one is more urgent. All other reasons are 0, none is -1.
URGENCY: dict[Reason | None, int] = {None: -1, Reason.STOPPED_EARLY: 1, Reason.USER_CANCEL: 1, Reason.USER_ABORT: 2}


@contextmanager
def gate(session: Session, run_id: str) -> Iterator[Gate]:
    """Lock a run until the transaction ends. Raises NotFound."""
    # FOR NO KEY UPDATE: rows that only refer to the run, such as log lines, can be stored meanwhile.
    query = select(Run).where(Run.id == run_id).with_for_update(key_share=True)
    run = session.scalars(query.execution_options(populate_existing=True)).first()
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    opened = Gate(session, run)
    yield opened
    opened.close()


@contextmanager
def stage_gate(session: Session, stage_id: int) -> Iterator[tuple[Gate, Stage]]:
    """Lock the run of a stage; yields its gate and the stage as it is now. Raises NotFound."""
    run_id = session.scalar(select(Stage.run_id).where(Stage.id == stage_id))
    if run_id is None:
        raise NotFound(f"there is no stage {stage_id}")
    with gate(session, run_id) as opened:
        yield opened, session.get_one(Stage, stage_id, populate_existing=True)


class Gate:
    """A locked run. Only `gate` and `stage_gate` make one."""

    def __init__(self, session: Session, run: Run):
        self.session, self.run = session, run

    def stages(self) -> list[Stage]:
        """The run's stages as they are now, in the order of the graph."""
        query = select(Stage).where(Stage.run_id == self.run.id).order_by(Stage.position)
        return list(self.session.scalars(query.execution_options(populate_existing=True)))

    def attempt_of(self, stage: Stage) -> Attempt:
        """The stage's current attempt."""
        query = select(Attempt).where(Attempt.stage_id == stage.id, Attempt.no == stage.attempt_no)
        return self.session.scalars(query.execution_options(populate_existing=True)).one()

    def move(self, stage: Stage, to: StageStatus, *, reason: Reason | None = None, message: str = "", **changes: Any) -> None:
        """Change a stage's status and the columns in `changes`. Raises IllegalTransition."""
        frm = stage.status
        if to not in TRANSITIONS[frm]:
            raise IllegalTransition(f"stage {stage.name} of {self.run.id} cannot go from {frm} to {to}")
        self.session.flush()
        values = {"status": to, "reason": reason, "message": message, **_stamps(to), **changes}
        moved = self.session.execute(
            update(Stage)
            .where(Stage.id == stage.id, Stage.status == frm)
            .values(**values)
            .returning(Stage.id)
            .execution_options(synchronize_session=False)
        ).first()
        if moved is None:
            raise IllegalTransition(f"stage {stage.name} of {self.run.id} is no longer {frm}")
        self.session.refresh(stage)
        self.note(
            "stage_status",
            stage,
            {"from": frm, "to": to, "reason": reason, "message": message, "attempt": stage.attempt_no or None},
        )

    def adopt(self, stage: Stage, before: Stage) -> None:
        """Mark a PENDING stage of a new run as done, because its run takes over what `before`, a stage of another run, made."""
        if stage.status is not StageStatus.PENDING or before.status is not StageStatus.SUCCEEDED:
            raise IllegalTransition(
                f"stage {stage.name} of {self.run.id} cannot be taken over: {stage.status}, {before.status}"
            )
        stage.status, stage.reason, stage.attempt_no = StageStatus.SUCCEEDED, Reason.COMPLETED, 1
        stage.message = f"Taken over from run {before.run_id}."
        stage.started_at = stage.finished_at = before.finished_at
        stage.progress, stage.latest = before.progress, before.latest
        self.note("stage_taken_over", stage, {"from": before.run_id})

    def end_attempt(self, attempt: Attempt, reason: Reason, *, message: str = "", exit_code: int | None = None) -> None:
        """Set an attempt's final status. It writes no event: the caller moves the stage next, which writes one."""
        if not attempt.status.is_live:
            raise IllegalTransition(f"attempt {attempt.no} has already ended as {attempt.status}")
        attempt.status, attempt.reason, attempt.message = reason.attempt_status, reason, message
        attempt.exit_code, attempt.finished_at = exit_code, self.now()
        self.session.flush()

    def ask_to_stop(self, stage: Stage, reason: Reason) -> None:
        """Move a live stage to STOPPING. Its supervisor sees `stop_reason` when it next renews the lease."""
        attempt = self.attempt_of(stage)
        if URGENCY.get(reason, 0) > URGENCY.get(attempt.stop_reason, 0):
            attempt.stop_reason = reason
        attempt.status = AttemptStatus.STOPPING
        if stage.status is not StageStatus.STOPPING:
            self.move(stage, StageStatus.STOPPING, reason=reason, message=reason.message)

    def note(self, kind: str, stage: Stage | None, data: dict[str, Any]) -> None:
        """Write an event. Because the run is locked, its id is greater than those of all earlier events of the run."""
        self.session.add(Event(run_id=self.run.id, stage_id=stage.id if stage else None, kind=kind, data=data))
        self.session.flush()

    def now(self) -> Any:
        return self.session.scalar(select(func.clock_timestamp()))

    def close(self) -> None:
        """Derive and store the run's status. Writes an event if the status changed."""
        self.session.flush()
        rows = self.session.execute(
            select(
                Stage.name,
                Stage.status,
                Stage.queue,
                Stage.attempt_no,
                Stage.message,
                Attempt.resumed_from_step,
                Stage.outputs,
                Stage.reason,
            )
            .outerjoin(Attempt, (Attempt.stage_id == Stage.id) & (Attempt.no == Stage.attempt_no))
            .where(Stage.run_id == self.run.id)
            .order_by(Stage.position)
        )
        states = [
            StageState(called(name), status, queue, no, step, message, side=outputs == [*SIDE_OUTPUTS], reason=reason)
            for name, status, queue, no, message, step, outputs, reason in rows
        ]
        status, detail = derive(states, self.run.desired)
        if self.run.started_at is None and any(s.attempt for s in states):
            self.run.started_at = self.now()
        self.run.detail = detail = HELD if self.run.held and status is RunStatus.QUEUED else detail
        if status is not self.run.status:
            self.note("run_status", None, {"from": self.run.status, "to": status, "detail": detail})
            self.run.status = status
            self.run.finished_at = self.now() if status.is_finished else None
        self.session.flush()


def _stamps(to: StageStatus) -> dict[str, Any]:
    """Values of the columns that depend on the new status alone."""
    values: dict[str, Any] = {"retry_at": None}
    if to is StageStatus.QUEUED:
        values |= {"queued_at": func.now(), "dispatched_at": None, "finished_at": None}
    if to is StageStatus.STARTING:
        values |= {"signs_of_life_at": func.now(), "started_at": func.coalesce(Stage.started_at, func.now())}
    if to is StageStatus.PENDING:
        values |= {"finished_at": None, "queued_at": None}
    if to.is_finished:
        values |= {"finished_at": func.now()}
    return values
