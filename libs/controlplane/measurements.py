"""What finished stages took on this platform's machines, kept so that later plans use it (docs/decisions/0011).

A stage is measured when its first attempt succeeds without a stop, a resume or another run beside it on its machine. The figures
outlive the run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC
from statistics import median

from pydantic import ValidationError
from sqlalchemy import and_, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from controlplane import points
from controlplane.models import Attempt, Measurement, Run, Stage, Worker
from nanochat.config.recipe import Recipe
from nanochat.planning import gpus, graph
from nanochat.planning import measured as planning
from nanochat.planning.graph import StageDef
from nanochat.planning.measured import Measured

ENOUGH = 3  # runs, before a plan believes them
NEWEST = 20  # runs that a figure is the median of, at most
FARTHEST = 8  # times more or less work per token than at the measured depth; GPUs reach other speeds beyond
POINTS = 10  # of a speed, before its median says something: the first steps compile


def keep(session: Session, run: Run, stage: Stage, attempt: Attempt) -> None:
    """Store what an attempt that has just succeeded took, if it is fit to plan with. The run is locked."""
    definition = _definition(stage.name)
    if definition is None or not _undisturbed(session, stage, attempt):
        return
    try:
        recipe = Recipe.model_validate(run.config)
    except ValidationError:
        return  # an old run, whose recipe this release no longer knows
    alike = planning.likeness(recipe, definition)
    work = planning.work(recipe) if planning.uses_model(definition) else None
    speed = None
    if alike is None or attempt.finished_at is None:
        return
    if planning.by_speed(definition):
        speed = _speed(session, stage, attempt, work or 0)
        if speed is None:
            return
    row = {
        "alike": alike,
        "depth": recipe.model.depth if work is not None else None,
        "work": work,
        "gpu": machine(attempt.gpu_name),
        "gpus": attempt.gpus,
        "flops_per_s": speed,
        "seconds": (attempt.finished_at - attempt.claimed_at).total_seconds(),
        "measured_at": attempt.finished_at,
    }
    session.execute(insert(Measurement).values(attempt_id=attempt.id, **row).on_conflict_do_nothing())


def of(session: Session, recipe: Recipe, world_size: int, gpu: str | None) -> list[Measured]:
    """Figures for the stages of a run of `recipe` on these GPUs; None: one process on the CPU of a gpu worker."""
    alike = {s.name: key for s in graph.stages(recipe) if (key := planning.likeness(recipe, s)) is not None}
    on_gpus = and_(
        Measurement.gpu == machine(gpu), Measurement.gpus == (world_size if gpu else 0), Measurement.work.is_not(None)
    )
    place = func.row_number().over(
        partition_by=(Measurement.alike, Measurement.depth), order_by=(Measurement.measured_at.desc(), Measurement.attempt_id)
    )
    of_cpu_queue = Measurement.work.is_(None)
    numbered = (
        select(Measurement, place.label("place"))
        .where(Measurement.alike.in_(alike.values()), or_(on_gpus, of_cpu_queue))
        .subquery()
    )
    newest = select(aliased(Measurement, numbered)).where(numbered.c.place <= NEWEST)
    rows: dict[str, list[Measurement]] = defaultdict(list)
    for row in session.scalars(newest):
        rows[row.alike].append(row)
    found = (_figure(recipe, stage, rows[key]) for stage, key in alike.items())
    return [figure for figure in found if figure is not None]


def machine(gpu_name: str | None) -> str:
    """One name for a GPU, whether a driver or a user says it."""
    card = gpus.find(gpu_name)
    return card.name if card else (gpu_name or "").strip().casefold()


def _definition(name: str) -> StageDef | None:
    return next((stage for stage in graph.STAGES if stage.name == name), None)


def _undisturbed(session: Session, stage: Stage, attempt: Attempt) -> bool:
    """Whether nothing but the stage itself decided how long it took."""
    if attempt.no != 1 or attempt.resumed_from_step is not None or attempt.stop_reason is not None:
        return False
    if attempt.process.get("machines", 1) != 1:
        return False  # plans are made for one machine
    host = select(Worker.hostname).where(Worker.id == attempt.worker_id).scalar_subquery()
    beside = (
        select(Attempt.id)
        .join(Worker, Worker.id == Attempt.worker_id)
        .join(Stage, Stage.id == Attempt.stage_id)
        .where(
            Worker.hostname == host,
            Stage.run_id != stage.run_id,  # stages of one run that run side by side will do so again
            Attempt.gpus >= min(1, attempt.gpus),  # a stage on GPUs hardly notices one on the CPU
            Attempt.claimed_at < attempt.finished_at,
            func.coalesce(Attempt.finished_at, attempt.finished_at) > attempt.claimed_at,
        )
    )
    return session.scalar(beside.limit(1)) is None


def _speed(session: Session, stage: Stage, attempt: Attempt, work: int) -> float | None:
    """Median FLOPs per second of the attempt. None: too few figures, or more than the GPUs can do, which no training reaches."""
    value = points.everywhere(stage_id=stage.id, key="tok_per_s", attempt_no=attempt.no).c.value
    middle = func.percentile_cont(0.5).within_group(value)
    count, tok_per_s = session.execute(select(func.count(), middle).where(value > 0, value < float("inf"))).one()
    if count < POINTS:
        return None
    card = gpus.find(attempt.gpu_name)
    speed = float(tok_per_s) * work
    return None if card is not None and speed > card.peak_flops * max(1, attempt.gpus) else speed


def _figure(recipe: Recipe, stage: str, rows: Sequence[Measurement]) -> Measured | None:
    """The median of the newest runs at the recipe's depth, or else at the depth whose work is nearest to the recipe's."""
    by_depth: dict[int | None, list[Measurement]] = defaultdict(list)
    for row in rows:
        by_depth[row.depth].append(row)
    work = planning.work(recipe)
    enough = {depth: group for depth, group in by_depth.items() if len(group) >= ENOUGH}
    near = {depth: distance for depth, group in enough.items() if (distance := _distance(group[0], work)) <= math.log(FARTHEST)}
    if not near:
        return None
    depth = min(near, key=lambda depth: near[depth])
    chosen = enough[depth]
    speeds = [row.flops_per_s for row in chosen if row.flops_per_s is not None]
    hours = [row.seconds / 3600 * (1.0 if row.work is None else work / row.work) for row in chosen]
    return Measured(
        stage=stage,
        runs=len(chosen),
        since=min(row.measured_at for row in chosen).astimezone(UTC).date(),
        depth=None if depth in (None, recipe.model.depth) else depth,
        flops_per_s=median(speeds) if speeds else None,
        hours=None if speeds else median(hours),
    )


def _distance(row: Measurement, work: int) -> float:
    return 0.0 if row.work is None else abs(math.log(row.work / work))
