"""Submit, cancel, pause, resume and retry runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, StageNotFound
from controlplane.lifecycle import HELD, Desired, Reason, StageStatus
from controlplane.models import Checkpoint, Event, IdempotencyKey, Json, Run, Stage
from controlplane.roles import DEFAULT_PROJECT
from controlplane.transitions import gate
from nanochat.config.recipe import Recipe
from nanochat.planning import graph
from nanochat.planning.plan import Plan

RETRYABLE = (StageStatus.FAILED, StageStatus.BACKOFF, StageStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A client's idempotency key: submissions with the same key are the same run."""

    principal: str  # id of the API key
    key: str
    request_sha256: str


class KeyReused(Conflict):
    """The idempotency key was used for another request."""


@dataclass(frozen=True, slots=True)
class Terms:
    """A run's place in the queue and its budget. None means no limit; for the price, that of the table of GPUs."""

    priority: int = 0
    max_usd: float | None = None
    max_hours: float | None = None
    usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A run's place in a sweep. A `held` run waits until the sweep releases it."""

    sweep_id: str
    no: int  # counted from 1
    overrides: Json
    held: bool


class Submission(NamedTuple):
    run: Run
    created: bool  # False if an earlier submission with the same idempotency key made the run


def submit(
    session: Session,
    recipe: Recipe,
    *,
    name: str | None = None,
    project: str = DEFAULT_PROJECT,
    idempotency: Idempotency | None = None,
    owner: str = "",
    planned: Plan | None = None,
    terms: Terms = Terms(),
    labels: Sequence[str] = (),
    place: Place | None = None,
) -> Submission:
    """Store a run with its stages. Raises KeyReused if the idempotency key was used for another request."""
    if idempotency is not None:
        earlier = reserve(session, idempotency)
        if earlier is not None:
            return Submission(session.scalars(select(Run).where(Run.id == earlier.run_id)).one(), created=False)
    run = Run(
        project=project,
        name=name or recipe.name,
        recipe=recipe.name,
        config=recipe.model_dump(mode="json"),
        owner=owner,
        planned=planned.model_dump(mode="json") if planned else None,
        priority=terms.priority,
        max_usd=terms.max_usd,
        max_hours=terms.max_hours,
        usd_per_hour=terms.usd_per_hour,
        labels=sorted(set(labels)),
    )
    if place is not None:
        run.sweep_id, run.sweep_no, run.overrides, run.held = place.sweep_id, place.no, place.overrides, place.held
        run.detail = HELD if place.held else ""
    session.add(run)
    session.flush()
    for position, stage in enumerate(graph.stages(recipe)):
        session.add(
            Stage(
                run_id=run.id,
                name=stage.name,
                kind=stage.kind,
                queue=stage.queue,
                position=position,
                config=graph.config(recipe, stage),
                inputs=dict(stage.inputs),
                outputs=list(stage.outputs),
            )
        )
    session.add(Event(run_id=run.id, kind="run_submitted", data={"name": run.name, "recipe": run.recipe}))
    session.flush()
    if idempotency is not None:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.principal == idempotency.principal, IdempotencyKey.key == idempotency.key)
            .values(run_id=run.id)
        )
    session.refresh(run)
    return Submission(run, created=True)


def cancel(session: Session, run_id: str, *, now: bool = False, reason: Reason = Reason.USER_CANCEL) -> Run:
    """Cancel a run for good. Waiting stages are cancelled at once; live ones save their work first, unless `now`.

    A run that is already being cancelled can be cancelled `now`. Raises NotFound, Conflict.
    """
    reason = Reason.USER_ABORT if now else reason
    with gate(session, run_id) as g:
        unfinished(g.run)
        g.run.desired = Desired.CANCEL
        for stage in g.stages():
            if stage.status.is_live:
                g.ask_to_stop(stage, reason)
            elif not stage.status.is_finished:
                g.move(stage, StageStatus.CANCELLED, reason=reason, message=reason.message)
    return g.run


def pause(session: Session, run_id: str, *, reason: Reason = Reason.USER_PAUSE) -> Run:
    """Pause a run, which frees its workers. `resume` continues from the last checkpoints. Raises NotFound, Conflict."""
    with gate(session, run_id) as g:
        unfinished(g.run)
        _not_cancelled(g.run)
        g.run.desired = Desired.PAUSE
        for stage in g.stages():
            if stage.status.is_live:
                g.ask_to_stop(stage, reason)
            elif stage.status in (StageStatus.QUEUED, StageStatus.BACKOFF):
                g.move(stage, StageStatus.PAUSED, reason=reason, message=reason.message)
    return g.run


def resume(session: Session, run_id: str) -> Run:
    """Resume a paused run. Raises NotFound, Conflict."""
    with gate(session, run_id) as g:
        unfinished(g.run)
        _not_cancelled(g.run)
        g.run.desired = Desired.RUN
        for stage in g.stages():
            if stage.status is StageStatus.PAUSED:
                g.move(stage, StageStatus.QUEUED)
    return g.run


def retry(session: Session, run_id: str, stage_name: str | None = None) -> Run:
    """Queue a stage that failed, is paused or waits for a retry, or all of those, with a new count of failures. The run resumes.

    Raises NotFound, and Conflict if there is nothing to retry.
    """
    with gate(session, run_id) as g:
        _not_cancelled(g.run)
        stages = g.stages()
        chosen = [stage for stage in stages if stage_name in (None, stage.name)]
        if not chosen:
            known = ", ".join(stage.name for stage in stages)
            raise StageNotFound(f"run {g.run.id} has no stage {stage_name!r}; it has {known}")
        due = [stage for stage in chosen if stage.status in RETRYABLE]
        if not due:
            what = "failed stage" if stage_name is None else f"failed stage {stage_name!r}"
            raise Conflict(f"run {g.run.id} has no {what} to retry")
        g.run.desired = Desired.RUN
        for stage in stages:
            if stage in due:
                g.move(stage, StageStatus.QUEUED, failures=0)
            elif stage.status is StageStatus.PAUSED:
                g.move(stage, StageStatus.QUEUED)
    return g.run


def describe(
    session: Session,
    run_id: str,
    *,
    name: str | None = None,
    notes: str | None = None,
    notes_before: str | None = None,
    labels: list[str] | None = None,
    archived: bool | None = None,
) -> Run:
    """Change what people say about a run; None leaves a thing as it is.

    Raises NotFound, and Conflict for archiving a live run or when the notes are no longer `notes_before`.
    """
    with gate(session, run_id) as g:
        if notes is not None and notes_before is not None and g.run.notes not in (notes_before, notes):
            raise Conflict(f"the notes of run {run_id} have been changed meanwhile; read them again before you write yours")
        if archived:
            _finished(g.run, "archived")
        if archived is not None:
            g.run.archived_at = (g.run.archived_at or g.now()) if archived else None
        g.run.name = g.run.name if name is None else name
        g.run.notes = g.run.notes if notes is None else notes
        g.run.labels = g.run.labels if labels is None else sorted(set(labels))
    return g.run


def delete(session: Session, run_id: str) -> Run:
    """Delete a finished run: nobody sees it any more, and workers delete its checkpoints.

    Raises NotFound, and Conflict while it is not finished, one of its checkpoints is promoted or pinned, or another run builds on it.
    """
    with gate(session, run_id) as g:
        _finished(g.run, "deleted")
        heirs = session.scalars(select(Run.id).where(Run.forked_from == run_id, Run.deleted_at.is_(None))).all()
        if heirs:
            raise Conflict(f"run {run_id} cannot be deleted: {', '.join(heirs)} took over its files; delete those first")
        mine = select(Checkpoint).where(Checkpoint.run_id == run_id, Checkpoint.deleted_at.is_(None))
        for checkpoint in session.scalars(mine.execution_options(populate_existing=True)):
            if checkpoint.promoted_at is not None or checkpoint.pinned_at is not None:
                why = "promoted" if checkpoint.promoted_at is not None else "pinned"
                raise Conflict(f"run {run_id} cannot be deleted: its checkpoint {checkpoint.id} is {why}")
            checkpoint.deleted_at = checkpoint.delete_after = g.now()
        g.run.deleted_at = g.now()
        g.note("run_deleted", None, {})
    return g.run


def _finished(run: Run, what: str) -> None:
    if not run.status.is_finished:
        raise Conflict(f"run {run.id} is {run.status} and cannot be {what}; cancel it first")


def unfinished(run: Run) -> None:
    """Raises Conflict if the run has ended."""
    if run.status.is_finished:
        raise Conflict(f"run {run.id} has already ended as {run.status}")


def _not_cancelled(run: Run) -> None:
    if run.desired is Desired.CANCEL:
        raise Conflict(f"run {run.id} was cancelled, which is final; submit it again")


def reserve(session: Session, idempotency: Idempotency) -> IdempotencyKey | None:
    """Reserve the key, or return it with what an earlier submission with it made. Raises KeyReused.

    If that submission has not committed yet, the INSERT waits for it.
    """
    taken = session.execute(
        insert(IdempotencyKey)
        .values(principal=idempotency.principal, key=idempotency.key, request_sha256=idempotency.request_sha256)
        .on_conflict_do_nothing()
        .returning(func.now())
    ).first()
    if taken is not None:
        return None
    held = session.get_one(IdempotencyKey, (idempotency.principal, idempotency.key))
    if held.request_sha256 != idempotency.request_sha256:
        raise KeyReused("this Idempotency-Key was used for a different request; use a new key for a new run")
    return held
