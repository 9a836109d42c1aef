"""Fork a run: a new run that takes over what the old one has done and its own recipe leaves unchanged.

A stage is taken over if it succeeded, has the same configuration, and everything that it reads is as it was. It gets an attempt that
took no time and the old artifacts, which are referenced, not copied. All other stages run. The data stage that runs again only for other
conversations publishes the same text, so that the pretrained model is taken over all the same.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane import retention, runs
from controlplane.errors import CheckpointNotFound, Conflict, NotFound, StageNotFound
from controlplane.lifecycle import AttemptStatus, Reason, StageStatus
from controlplane.models import Artifact, Attempt, Checkpoint, Run, Stage
from controlplane.transitions import Gate, gate
from nanochat.config.recipe import Recipe
from nanochat.planning import graph
from nanochat.planning.plan import Plan


def fork(
    session: Session,
    parent_id: str,
    recipe: Recipe,
    *,
    from_stage: str | None = None,
    from_checkpoint: str | None = None,
    name: str | None = None,
    idempotency: runs.Idempotency | None = None,
    planned: Plan | None = None,
    terms: runs.Terms | None = None,
) -> runs.Submission:
    """Start a run that continues another one. `from_stage` runs in any case; `from_checkpoint` is where its stage starts.

    Without `terms` it has the priority and the budget of the old run. The checkpoint is pinned. Raises NotFound, and Conflict if the checkpoint does not fit the new recipe.
    """
    parent = source(session, parent_id)
    start = None if from_checkpoint is None else _start(session, parent_id, from_checkpoint)
    submission = runs.submit(
        session,
        recipe,
        name=name,
        project=parent.project,
        idempotency=idempotency,
        owner=parent.owner,
        planned=planned,
        terms=terms or terms_of(parent),
    )
    if not submission.created:
        return submission
    again = start.name if start else from_stage
    with gate(session, submission.run.id) as g:
        g.run.forked_from = parent_id
        stages = g.stages()
        if again is not None and again not in {stage.name for stage in stages}:
            raise StageNotFound(f"the new run has no stage {again!r}; it has {', '.join(stage.name for stage in stages)}")
        reused, same = _reuse(g, parent, stages, again)
        if start is not None:
            stage = next(stage for stage in stages if stage.name == again)
            if missing := {source.partition(".")[0] for source in stage.inputs.values() if source not in same}:
                raise Conflict(
                    f"checkpoint {from_checkpoint} does not fit: {', '.join(sorted(missing))} would run again before {again}"
                )
            stage.start_checkpoint = from_checkpoint
        g.note("run_forked", None, {"from": parent_id, "checkpoint": from_checkpoint, "reused": sorted(reused)})
    session.refresh(submission.run)
    return submission


def source(session: Session, run_id: str) -> Run:
    """The run to build on. Raises NotFound."""
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    return run


def terms_of(run: Run) -> runs.Terms:
    """The run's place in the queue and its budget, which its forks inherit. What it has spent of it is not counted again."""
    return runs.Terms(run.priority, run.max_usd, run.max_hours, run.usd_per_hour)


def furthest_checkpoint(session: Session, run_id: str, stage: str) -> Checkpoint:
    """The checkpoint of a stage with the most steps that is still on disk. Raises NotFound."""
    query = (
        select(Checkpoint)
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .where(Stage.run_id == run_id, Stage.name == stage, Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.step.desc(), Checkpoint.created_at.desc())
        .limit(1)
    )
    found = session.scalars(query).first()
    if found is None:
        raise CheckpointNotFound(f"stage {stage!r} of run {run_id!r} has no checkpoint on disk")
    return found


def _start(session: Session, parent_id: str, checkpoint_id: str) -> Stage:
    """Pin the checkpoint. Returns the stage that made it."""
    checkpoint = session.get(Checkpoint, checkpoint_id)
    if checkpoint is None or checkpoint.run_id != parent_id:
        raise CheckpointNotFound(f"run {parent_id!r} has no checkpoint {checkpoint_id!r}")
    stage = session.get_one(Stage, checkpoint.stage_id)
    if stage.status.is_live:
        raise Conflict(f"{stage.name} of run {parent_id} is running and may delete its checkpoints; pause the run first")
    retention.pin(session, checkpoint_id)
    return stage


def _reuse(g: Gate, parent: Run, stages: list[Stage], again: str | None) -> tuple[set[str], set[str]]:
    """Take over every stage that can be, except `again`. Returns their names, and the artifacts that are as they were."""
    old = {stage.name: stage for stage in g.session.scalars(select(Stage).where(Stage.run_id == parent.id))}
    reused: set[str] = set()
    same: set[str] = set()
    if parent.config.get("seed") != g.run.config.get("seed"):
        return reused, same
    for stage in stages:
        before = old.get(stage.name)
        if before is None or stage.name == again or not set(stage.inputs.values()) <= same:
            continue
        if before.status is not StageStatus.SUCCEEDED or _shape(before) != _shape(stage):
            continue
        unaffected = graph.unaffected(stage.name, stage.outputs, before.config, stage.config)
        same |= unaffected
        if len(unaffected) == len(stage.outputs):
            _take_over(g, stage, before)
            reused.add(stage.name)
    return reused, same


def _shape(stage: Stage) -> tuple[object, ...]:
    return stage.kind, stage.inputs, stage.outputs


def _take_over(g: Gate, stage: Stage, before: Stage) -> None:
    session = g.session
    query = select(Attempt).where(Attempt.stage_id == before.id, Attempt.status == AttemptStatus.SUCCEEDED)
    done = session.scalars(query.order_by(Attempt.no.desc()).limit(1)).one()
    attempt = Attempt(
        stage_id=stage.id,
        no=1,
        status=AttemptStatus.SUCCEEDED,
        reason=Reason.COMPLETED,
        message=f"Taken over from run {before.run_id}.",
        worker_id=done.worker_id,
        lease_expires_at=done.lease_expires_at,
        claimed_at=done.finished_at,
        started_at=done.finished_at,
        finished_at=done.finished_at,
        exit_code=0,
    )
    session.add(attempt)
    session.flush()
    published = select(Artifact).join(Attempt, Attempt.id == Artifact.attempt_id).where(Artifact.stage_id == before.id)
    newest = {artifact.name: artifact for artifact in session.scalars(published.order_by(Attempt.no))}
    for name, artifact in newest.items():
        session.add(
            Artifact(
                run_id=g.run.id,
                stage_id=stage.id,
                attempt_id=attempt.id,
                name=name,
                path=artifact.path,
                sha256=artifact.sha256,
            )
        )
    g.adopt(stage, before)
