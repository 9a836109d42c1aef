"""Which checkpoints may be deleted, and the two steps in which that happens.

Step one, `collect`, marks a checkpoint that nothing needs: `delete_after` is the moment from which its files may go. Until
then a pin or a promotion takes the mark back. Step two is a worker's: `take_expired` looks once more whether anything needs
the checkpoint, records it as deleted and hands out its folder; `freed` records that the folder is gone. A worker that dies in
between gets the folder again. `discard` is a user's deletion: recorded at once, then left to step two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, exists, func, select, update
from sqlalchemy.orm import Session

from controlplane.errors import Conflict, NotFound
from controlplane.lifecycle import StageStatus
from controlplane.loops import seconds
from controlplane.models import Artifact, Checkpoint, Run, Stage
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import Gate, gate

ENDED = (StageStatus.SUCCEEDED, StageStatus.CANCELLED)  # a failed stage may be retried
RESUMABLE_KEPT = 2  # of an unfinished stage: the newest one may turn out to be damaged


class Need(StrEnum):
    """Why a checkpoint is kept. The first four also hold against a user who asks to delete it."""

    PINNED = "it is pinned; unpin it first"
    SERVED = "it is promoted, and the inference service may be serving it; demote it first"
    RUNNING = "an attempt of its stage is running; cancel or pause the run first"
    PUBLISHED = "it is the model that its stage published, and other stages read it; delete the whole run instead"
    RESUMABLE = "its stage is not finished and may continue from it"
    BEST = "it is the best one of its stage"

    @property
    def is_binding(self) -> bool:
        return self not in (Need.RESUMABLE, Need.BEST)


@dataclass(frozen=True, slots=True)
class Held:
    """A checkpoint that is on disk, and what it is needed for."""

    checkpoint: Checkpoint
    run: str
    stage: str
    needs: tuple[Need, ...]


def held(session: Session, *where: ColumnElement[bool]) -> list[Held]:
    """The checkpoints that are on disk and meet the conditions, by run, stage and step."""
    newest = func.row_number().over(partition_by=Checkpoint.stage_id, order_by=[Checkpoint.step.desc(), Checkpoint.id])
    best = func.row_number().over(
        partition_by=Checkpoint.stage_id,
        order_by=[Checkpoint.val_bpb.asc().nulls_last(), Checkpoint.step.desc(), Checkpoint.id],
    )
    published = exists().where(Artifact.path == Checkpoint.path, Artifact.run_id == Checkpoint.run_id)
    ranked = select(Checkpoint.id, newest.label("newest"), best.label("best")).where(Checkpoint.deleted_at.is_(None)).subquery()
    query = (
        select(Checkpoint, Run.name, Stage, ranked.c.newest, ranked.c.best, published)
        .join(ranked, ranked.c.id == Checkpoint.id)
        .join(Run, Run.id == Checkpoint.run_id)
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .where(Checkpoint.deleted_at.is_(None), *where)
        .order_by(Run.created_at, Run.id, Stage.position, Checkpoint.step)
        .execution_options(populate_existing=True)
    )
    return [
        Held(c, run, stage.name, tuple(_needs(c, stage, newest_no, best_no, is_published)))
        for c, run, stage, newest_no, best_no, is_published in session.execute(query)
    ]


def collect(session: Session, *, dry_run: bool, timing: Timing = DEFAULT) -> list[Held]:
    """Mark every checkpoint that nothing needs, and return those that are marked. With `dry_run` nothing is changed."""
    idle = [h for h in held(session) if not h.needs]
    if not dry_run:
        for run_id in sorted({h.checkpoint.run_id for h in idle if h.checkpoint.delete_after is None}):
            with gate(session, run_id):
                found = [h.checkpoint for h in held(session, Checkpoint.run_id == run_id) if not h.needs]
                _mark(session, [c.id for c in found if c.delete_after is None], timing.gc_grace)
        idle = [h for h in held(session) if h.checkpoint.delete_after is not None and not h.needs]
    return idle


def discard(session: Session, checkpoint_id: str) -> Checkpoint:
    """Delete one checkpoint on a user's request. Raises NotFound, and Conflict with what needs it."""
    run_id = run_of(session, checkpoint_id)
    with gate(session, run_id) as g:
        found = held(session, Checkpoint.id == checkpoint_id)
        if not found:
            raise Conflict(f"checkpoint {checkpoint_id} has been deleted already")
        if binding := [need for need in found[0].needs if need.is_binding]:
            raise Conflict(f"checkpoint {checkpoint_id} cannot be deleted: {'; '.join(binding)}")
        _record(g, found[0].checkpoint)
        return found[0].checkpoint


def pin(session: Session, checkpoint_id: str, *, pinned: bool = True) -> Checkpoint:
    """Keep a checkpoint until it is unpinned. Raises NotFound, and Conflict if its files are gone."""
    run_id = run_of(session, checkpoint_id)
    with gate(session, run_id) as g:
        checkpoint = session.get_one(Checkpoint, checkpoint_id, populate_existing=True)
        if checkpoint.deleted_at is not None:
            raise Conflict(f"checkpoint {checkpoint_id} was deleted to free disk space")
        checkpoint.pinned_at = g.now() if pinned else None
        if pinned:
            checkpoint.delete_after = None
        return checkpoint


def take_expired(session: Session, limit: int = 20) -> list[tuple[str, str]]:
    """Record checkpoints whose time has come as deleted. Returns ids and folders, which the caller has to delete."""
    due = Checkpoint.delete_after <= func.clock_timestamp()
    waiting = select(Checkpoint.run_id).where(due, Checkpoint.deleted_at.is_(None)).distinct().limit(limit)
    for run_id in sorted(session.scalars(waiting)):
        with gate(session, run_id) as g:
            for item in held(session, Checkpoint.run_id == run_id, due):
                if item.needs:
                    item.checkpoint.delete_after = None  # needed again since it was marked
                else:
                    _record(g, item.checkpoint)
    left = select(Checkpoint.id, Checkpoint.path).where(due, Checkpoint.deleted_at.is_not(None)).order_by(Checkpoint.id)
    return [(checkpoint_id, path) for checkpoint_id, path in session.execute(left)]


def freed(session: Session, checkpoint_id: str) -> None:
    """Record that the files of a checkpoint are gone."""
    session.execute(update(Checkpoint).where(Checkpoint.id == checkpoint_id).values(delete_after=None))


def _record(g: Gate, checkpoint: Checkpoint) -> None:
    checkpoint.deleted_at = checkpoint.delete_after = g.now()
    stage = g.session.get_one(Stage, checkpoint.stage_id)
    g.note("checkpoint_deleted", stage, {"checkpoint": checkpoint.id, "step": checkpoint.step, "path": checkpoint.path})


def _needs(checkpoint: Checkpoint, stage: Stage, newest: int, best: int, published: bool) -> Iterator[Need]:
    if checkpoint.pinned_at is not None:
        yield Need.PINNED
    if checkpoint.promoted_at is not None:
        yield Need.SERVED
    if stage.status.is_live:
        yield Need.RUNNING
    if published:
        yield Need.PUBLISHED
    if stage.status not in ENDED and newest <= RESUMABLE_KEPT:
        yield Need.RESUMABLE
    if best == 1 and checkpoint.val_bpb is not None:
        yield Need.BEST


def _mark(session: Session, ids: Sequence[str], grace_s: float) -> None:
    when = func.clock_timestamp() + seconds(grace_s)
    session.execute(
        update(Checkpoint).where(Checkpoint.id.in_(ids)).values(delete_after=when).execution_options(synchronize_session=False)
    )


def run_of(session: Session, checkpoint_id: str) -> str:
    """The id of the checkpoint's run. Raises NotFound."""
    run_id = session.scalar(select(Checkpoint.run_id).where(Checkpoint.id == checkpoint_id))
    if run_id is None:
        raise NotFound(f"there is no checkpoint {checkpoint_id!r}")
    return run_id
