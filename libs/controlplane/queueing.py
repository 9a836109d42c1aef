"""The order in which queued stages are claimed, and why each of them waits.

A greater priority goes first. Among runs of one priority the owners share the workers fairly: the next stage is one of the owner
who holds the fewest slots of the queue, and of that owner's stages the one that has waited longest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.orm import Session, aliased

from controlplane import claims
from controlplane.claims import Claim
from controlplane.db import SessionFactory, among
from controlplane.errors import NotFound
from controlplane.lifecycle import LIVE_ATTEMPT, Desired, StageStatus
from controlplane.loops import seconds
from controlplane.models import Attempt, Json, Run, Stage, Worker
from controlplane.schemas import QueuedView
from controlplane.timing import DEFAULT, Timing
from nanochat.planning.graph import called

_LIVE = (
    select(Stage.queue, Run.project, Run.id, Stage.name)
    .join(Stage.run)
    .join(Attempt)
    .where(Attempt.status.in_(LIVE_ATTEMPT))
    .order_by(Attempt.id)
)
TRIES = 8  # stages that a worker tries to claim when others claim at the same time


class Capacity(NamedTuple):
    """What the workers of one queue can take now."""

    workers: int  # alive
    slots: int  # of the workers that are not draining
    busy: tuple[tuple[str, str], ...]  # what they run: project, and stage of run


def claim_first(
    factory: SessionFactory, stage_id: int, worker_id: str, *, process: Json | None = None, timing: Timing = DEFAULT
) -> Claim | None:
    """Claim the stage whose turn it is in the queue of this stage; None if there is none or the worker is full.

    A wake-up call names a stage, but only its queue matters: the call may be old, and another stage may have come before it.
    Raises NotFound for an unknown stage.
    """
    with factory.begin() as session:
        queue = session.scalar(select(Stage.queue).where(Stage.id == stage_id))
        if queue is None:
            raise NotFound(f"there is no stage {stage_id}")
        first = _queued().where(Stage.queue == queue).order_by(Run.priority.desc(), "share", Stage.queued_at, Stage.id)
        turns = [row.id for row in session.execute(first.limit(TRIES))]
    for turn in turns:
        with factory.begin() as session:
            claim = claims.claim(session, turn, worker_id, process=process, timing=timing)
        if claim is not None:
            return claim
    return None


def entries(
    session: Session, *, project: str | None = None, run_ids: Collection[str] | None = None, timing: Timing = DEFAULT
) -> list[QueuedView]:
    """Queued stages in the order in which they will be claimed, each with the reason why it waits.

    `project` leaves out the runs of other projects, and `run_ids` all but these; they keep their turns.
    """
    known = {"project": project, "run_ids": None if run_ids is None else list(run_ids)}
    rows = session.execute(_placed(project is not None, run_ids is not None), known).all()
    if not rows:
        return []
    capacity = _capacity(session, timing)
    return [
        QueuedView(
            run_id=row.run_id,
            run_name=row.run_name,
            stage=row.name,
            queue=row.queue,
            position=row.place,
            priority=row.priority,
            owner=row.owner,
            queued_at=row.queued_at,
            why=_why(row.queue, row.place, capacity, row.project),
        )
        for row in rows
    ]


@cache  # to build it takes longer than to execute it
def _placed(of_project: bool, of_runs: bool) -> Select[*tuple[Any, ...]]:
    """The queued stages of each queue with their places, of all runs or those of `:project` and `:run_ids`."""
    turn = _queued().subquery()
    place = func.row_number().over(
        partition_by=turn.c.queue, order_by=(turn.c.priority.desc(), turn.c.share, turn.c.queued_at, turn.c.id)
    )
    placed = select(turn, place.label("place")).subquery()
    wanted = select(placed).order_by(placed.c.queue, placed.c.place)
    if of_project:
        wanted = wanted.where(placed.c.project == bindparam("project"))
    return wanted.where(among(placed.c.run_id, "run_ids")) if of_runs else wanted


@cache
def _queued() -> Select[*tuple[Any, ...]]:
    """Queued stages. Those of one priority have their turns by their `share`: the slots that their owner holds, and for the n-th
    stage of an owner n more."""
    held_run, held_stage = aliased(Run), aliased(Stage)
    held = (
        select(held_run.owner, held_stage.queue, func.count().label("slots"))
        .select_from(Attempt)
        .join(held_stage, held_stage.id == Attempt.stage_id)
        .join(held_run, held_run.id == held_stage.run_id)
        .where(Attempt.status.in_(LIVE_ATTEMPT))
        .group_by(held_run.owner, held_stage.queue)
        .subquery()
    )
    own = func.row_number().over(
        partition_by=(Stage.queue, Run.owner), order_by=(Run.priority.desc(), Stage.queued_at, Stage.id)
    )
    share = func.coalesce(held.c.slots, 0) + own
    return (
        select(
            Stage.id,
            Stage.run_id,
            Stage.name,
            Stage.queue,
            Stage.queued_at,
            Run.owner,
            Run.priority,
            Run.name.label("run_name"),
            Run.project,
            share.label("share"),
        )
        .join(Run, Run.id == Stage.run_id)
        .outerjoin(held, (held.c.owner == Run.owner) & (held.c.queue == Stage.queue))
        .where(Stage.status == StageStatus.QUEUED, Run.desired == Desired.RUN)
    )


def _capacity(session: Session, timing: Timing) -> Mapping[str, Capacity]:
    alive = Worker.heartbeat_at > func.clock_timestamp() - seconds(timing.worker_silent_after)
    workers: dict[str, int] = defaultdict(int)
    slots: dict[str, int] = defaultdict(int)
    for queue, count, draining in session.execute(select(Worker.queue, Worker.slots, Worker.draining).where(alive)):
        workers[queue] += 1
        slots[queue] += 0 if draining else count
    busy: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for queue, project, run_id, name in session.execute(_LIVE):
        busy[queue].append((project, f"{called(name)} of {run_id}"))
    return {queue: Capacity(workers[queue], slots[queue], tuple(busy[queue])) for queue in {*workers, *busy}}


def _why(queue: str, place: int, capacity: Mapping[str, Capacity], project: str) -> str:
    now = capacity.get(queue, Capacity(0, 0, ()))
    if not now.workers:
        return f"no {queue} worker is alive: start one with `python -m services.worker --queue {queue}`"
    if not now.slots:
        return f"every {queue} worker is draining: start another one, or wait until they are back"
    free = now.slots - len(now.busy)
    if place <= free:
        return "a worker has a free slot and will take it in a moment"
    if free > 0:
        return (
            f"{place - 1} queued before it, for {free} free of {now.slots} slot{'s' * (now.slots > 1)} of the {queue} workers"
        )
    before = f"; {place - 1} queued before it" if place > 1 else ""
    taken = (
        f"the only slot of the {queue} workers is" if now.slots == 1 else f"all {now.slots} slots of the {queue} workers are"
    )
    return f"{taken} taken, by {_some(now.busy, project)}{before}"


def _some(busy: Sequence[tuple[str, str]], project: str) -> str:
    """The first stages of this project by name; those of other projects are only counted."""
    own = [name for of, name in busy if of == project]
    shown = own[:3]
    if len(own) > len(shown):
        shown.append(f"{len(own) - len(shown)} more")
    if len(busy) > len(own):
        shown.append(f"{len(busy) - len(own)} of other projects")
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
