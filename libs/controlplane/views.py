"""Read models of runs, checkpoints, models and workers. Each takes a fixed number of queries, however many rows there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from typing import Any, TypeVar

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane import budgets, queueing, run_facts
from controlplane.errors import NotFound, StageNotFound
from controlplane.lifecycle import LIVE_ATTEMPT, RunStatus, StageStatus
from controlplane.models import Artifact, Attempt, Checkpoint, Run, Stage, Worker
from controlplane.promotion import TOKENIZER
from controlplane.roles import DEFAULT_PROJECT
from controlplane.schemas import (
    ArtifactView,
    AttemptView,
    BudgetView,
    CheckpointView,
    ContentView,
    HeldView,
    ModelView,
    ProgressView,
    QueuedView,
    RunView,
    StageView,
    WaitingView,
    WorkerView,
)
from controlplane.timing import DEFAULT, Timing
from nanochat.planning.graph import called

T = TypeVar("T")


def run_view(session: Session, run_id: str) -> RunView:
    """One run with its stages, their attempts and artifacts. Raises NotFound."""
    run = _run(session, run_id)
    stages = session.scalars(select(Stage).where(Stage.run_id == run_id).order_by(Stage.position)).all()
    query = select(Attempt).join(Stage).where(Stage.run_id == run_id).order_by(Attempt.no)
    attempts = _grouped(session.scalars(query), lambda a: a.stage_id)
    artifacts = artifacts_of(session, run_id)
    published = {f"{s.name}.{a.name}" for s in stages for a in artifacts[s.id]}
    queued = any(stage.status is StageStatus.QUEUED for stage in stages)
    facts, plan = run_facts.facts(session, [run_id])[run_id], run_facts.of_run(run.planned)
    turns = {q.stage: q for q in queueing.entries(session, run_ids=[run_id])} if queued else {}
    return RunView(
        id=run.id,
        name=run.name,
        recipe=run.recipe,
        labels=run.labels,
        notes=run.notes,
        archived_at=run.archived_at,
        forked_from=run.forked_from,
        sweep_id=run.sweep_id,
        status=run.status,
        detail=run.detail,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        fraction=run_facts.fraction(facts, plan, run.status),
        eta_s=run_facts.eta_s(facts, plan, run.status),
        config=run.config,
        stages=[
            _stage(stage, attempts[stage.id], artifacts[stage.id], _waiting(run, stage, published, turns.get(stage.name)))
            for stage in stages
        ],
        priority=run.priority,
        budget=budget_view(run, budgets.usage(session, run)),
    )


def run_status(session: Session, run_id: str) -> RunStatus:
    """The run's status alone, for callers that poll several times a second. Raises NotFound."""
    return _run(session, run_id).status


def checkpoints(session: Session, run_id: str) -> list[CheckpointView]:
    """The run's checkpoints that are still on disk: last stage first, then furthest step first. Raises NotFound."""
    _run(session, run_id)
    query = (
        select(Checkpoint, Stage.name, Attempt.no)
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.run_id == run_id, Checkpoint.deleted_at.is_(None))
        .order_by(Stage.position.desc(), Checkpoint.step.desc(), Attempt.no.desc())
    )
    return [_checkpoint(c, stage, no) for c, stage, no in session.execute(query)]


def checkpoint_view(session: Session, checkpoint_id: str) -> CheckpointView:
    """One checkpoint. Raises NotFound."""
    query = (
        select(Checkpoint, Stage.name, Attempt.no)
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .join(Attempt, Attempt.id == Checkpoint.attempt_id)
        .where(Checkpoint.id == checkpoint_id)
    )
    row = session.execute(query).first()
    if row is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
    checkpoint, stage, no = row
    return _checkpoint(checkpoint, stage, no)


def models(session: Session, project: str = DEFAULT_PROJECT) -> list[ModelView]:
    """The project's promoted checkpoints that are still on disk, the newest promotion first. The inference service serves these."""
    query = (
        select(Checkpoint, Run, Stage.name, Artifact)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .join(Artifact, (Artifact.run_id == Run.id) & (Artifact.name == TOKENIZER))
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(Run.project == project, Checkpoint.promoted_at.is_not(None), Checkpoint.deleted_at.is_(None))
        .order_by(Checkpoint.promoted_at.desc(), Checkpoint.id, Attempt.no.desc())
    )
    found: dict[str, ModelView] = {}
    for checkpoint, run, stage, tokenizer in session.execute(query):
        if checkpoint.id not in found:  # the first row has the newest attempt's tokenizer
            found[checkpoint.id] = ModelView(
                id=checkpoint.id,
                run_id=run.id,
                run_name=run.name,
                stage=stage,
                step=checkpoint.step,
                created_at=checkpoint.created_at,
                model=ContentView(path=checkpoint.path, sha256=checkpoint.sha256),
                tokenizer=ContentView(path=tokenizer.path, sha256=tokenizer.sha256),
            )
    return list(found.values())


def artifact(session: Session, run_id: str, stage: str, name: str) -> ArtifactView | None:
    """A stage's newest artifact of this name, or None if there is none yet. Raises NotFound."""
    _run(session, run_id)
    for found in artifacts_of(session, run_id).get(_stage_id(session, run_id, stage), []):
        if found.name == name:
            return found
    return None


def workers(session: Session, timing: Timing = DEFAULT, *, project: str | None = None) -> list[WorkerView]:
    """Every worker that ever registered, with the attempts that it holds now. `project` leaves those of others without a name."""
    query = (
        select(
            Attempt.worker_id,
            Attempt.no,
            Attempt.claimed_at,
            Run.project,
            Run.name.label("run_name"),
            Stage.run_id,
            Stage.name.label("stage"),
            Stage.progress,
        )
        .join(Stage, Stage.id == Attempt.stage_id)
        .join(Run, Run.id == Stage.run_id)
        .where(Attempt.status.in_(LIVE_ATTEMPT))
        .order_by(Attempt.id)
    )
    held = _grouped(session.execute(query), lambda row: row.worker_id)
    rows = session.execute(
        select(Worker, func.extract("epoch", func.now() - Worker.heartbeat_at)).order_by(Worker.queue, Worker.id)
    )
    return [_worker(worker, float(silent), [_held(row, project) for row in held[worker.id]], timing) for worker, silent in rows]


def _held(row: Any, project: str | None) -> HeldView:
    known = project in (None, row.project)
    return HeldView(
        run_id=row.run_id if known else None,
        run_name=row.run_name if known else None,
        stage=row.stage if known else None,
        attempt=row.no if known else None,
        started_at=row.claimed_at,
        progress=progress_view(row.progress),
    )


# -- rows as read models --


def _waiting(run: Run, stage: Stage, published: Set[str], turn: QueuedView | None) -> WaitingView | None:
    match stage.status:
        case StageStatus.QUEUED if turn is not None:
            return WaitingView(position=turn.position, why=turn.why)
        case StageStatus.BACKOFF if stage.retry_at is not None:
            return WaitingView(why=f"tried again at {stage.retry_at:%H:%M:%S} UTC after: {stage.message}")
        case StageStatus.PAUSED:
            return WaitingView(why=stage.message or "the run is paused: resume it")
        case StageStatus.PENDING if run.held and not run.status.is_finished:
            return WaitingView(why=f"waits for its turn: as many other runs of the sweep {run.sweep_id} go on as it allows")
        case StageStatus.PENDING if not run.status.is_finished:
            missing = sorted(set(stage.inputs.values()) - published)
            makers = dict.fromkeys(called(output.partition(".")[0]) for output in missing)
            return WaitingView(why="waits for " + ", ".join(makers) if makers else "will be queued in a moment")
    return None


def budget_view(run: Run | Row[Any], used: budgets.Usage) -> BudgetView:
    return BudgetView(
        max_usd=run.max_usd,
        max_hours=run.max_hours,
        usd_per_hour=run.usd_per_hour,
        used_usd=used.usd,
        used_hours=used.hours,
        used_gpu_hours=used.gpu_hours,
    )


def _stage(
    stage: Stage, attempts: Sequence[Attempt], artifacts: Sequence[ArtifactView], waiting: WaitingView | None
) -> StageView:
    return StageView(
        name=stage.name,
        kind=stage.kind,
        queue=stage.queue,
        status=stage.status,
        reason=stage.reason,
        message=stage.message,
        started_at=stage.started_at,
        finished_at=stage.finished_at,
        waiting=waiting,
        progress=progress_view(stage.progress),
        latest=stage.latest,
        attempts=[_attempt(a) for a in attempts],
        artifacts=list(artifacts),
    )


def _attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        no=attempt.no,
        status=attempt.status,
        reason=attempt.reason,
        message=attempt.message,
        worker=attempt.worker_id,
        started_at=attempt.started_at or attempt.claimed_at,
        finished_at=attempt.finished_at,
        exit_code=attempt.exit_code,
        resumed_from_step=attempt.resumed_from_step,
        quarantined=attempt.quarantined,
    )


def _checkpoint(checkpoint: Checkpoint, stage: str, attempt: int) -> CheckpointView:
    return CheckpointView(
        id=checkpoint.id,
        stage=stage,
        attempt=attempt,
        step=checkpoint.step,
        path=checkpoint.path,
        sha256=checkpoint.sha256,
        bytes=checkpoint.bytes,
        final=checkpoint.final,
        val_bpb=checkpoint.val_bpb,
        created_at=checkpoint.created_at,
        promoted_at=checkpoint.promoted_at,
        pinned_at=checkpoint.pinned_at,
    )


def _worker(worker: Worker, silent_s: float, held: list[HeldView], timing: Timing) -> WorkerView:
    status = "lost" if silent_s > timing.worker_silent_after else "draining" if worker.draining else "busy" if held else "idle"
    return WorkerView(
        id=worker.id,
        queue=worker.queue,
        hostname=worker.hostname,
        status=status,
        slots=worker.slots,
        gpus=worker.gpus,
        gpu_name=worker.gpu_name,
        heartbeat_at=worker.heartbeat_at,
        attempts=[f"{h.run_id}/{h.stage}/{h.attempt}" if h.run_id else "(another project)" for h in held],
        runs=held,
        devices=(worker.state or {}).get("gpus", []),
        disks=(worker.state or {}).get("disks", []),
    )


def progress_view(stored: dict[str, Any] | None) -> ProgressView | None:
    return None if stored is None else ProgressView.model_validate(stored)


# -- look-ups --


def _run(session: Session, run_id: str) -> Run:
    run = session.get(Run, run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id!r}")
    return run


def _stage_id(session: Session, run_id: str, name: str) -> int:
    stage_id = session.scalar(select(Stage.id).where(Stage.run_id == run_id, Stage.name == name))
    if stage_id is None:
        raise StageNotFound(f"run {run_id!r} has no stage {name!r}")
    return stage_id


def artifacts_of(session: Session, run_id: str) -> dict[int, list[ArtifactView]]:
    """The newest artifact of each name, by the id of its stage."""
    query = (
        select(Artifact)
        .ext(distinct_on(Artifact.stage_id, Artifact.name))
        .join(Attempt, Attempt.id == Artifact.attempt_id)
        .where(Artifact.run_id == run_id)
        .order_by(Artifact.stage_id, Artifact.name, Attempt.no.desc())
    )
    found: dict[int, list[ArtifactView]] = defaultdict(list)
    for row in session.scalars(query):
        found[row.stage_id].append(ArtifactView(name=row.name, path=row.path, sha256=row.sha256))
    return found


def _grouped(rows: Iterable[T], key: Any) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups
