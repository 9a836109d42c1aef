"""Sweeps: make all their runs at once, act on them together, and release them a few at a time.

A sweep has no state of its own: it is what its runs are. Its row is locked before any of its runs, and its runs in the order of
their ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from controlplane import early_stopping, runs
from controlplane.db import SessionFactory
from controlplane.errors import Conflict, NotFound
from controlplane.lifecycle import Desired, RunStatus, Wish
from controlplane.loops import leading
from controlplane.models import IdempotencyKey, Json, Run, Sweep
from controlplane.roles import DEFAULT_PROJECT
from controlplane.runs import Terms
from controlplane.timing import DEFAULT, Timing
from controlplane.transitions import gate
from nanochat.config.recipe import Recipe
from nanochat.planning.plan import Plan

NAME_CHARS = 100  # of the name of a run


@dataclass(frozen=True, slots=True)
class Member:
    """A run to make."""

    label: str
    overrides: Json
    recipe: Recipe
    figures: Plan


class Submission(NamedTuple):
    sweep: Sweep
    created: bool  # False if an earlier submission with the same idempotency key made the sweep


def submit(
    session: Session,
    members: Sequence[Member],
    *,
    name: str,
    kind: str,
    spec: Json,
    project: str = DEFAULT_PROJECT,
    owner: str = "",
    terms: Terms,
    labels: Sequence[str] = (),
    max_parallel: int | None = None,
    idempotency: runs.Idempotency | None = None,
) -> Submission:
    """Store a sweep and all its runs. Raises KeyReused if the idempotency key was used for another request."""
    if idempotency is not None:
        earlier = runs.reserve(session, idempotency)
        if earlier is not None:
            return Submission(session.get_one(Sweep, earlier.sweep_id), created=False)
    sweep = Sweep(
        project=project,
        name=name,
        kind=kind,
        recipe=members[0].recipe.name,
        spec=spec,
        owner=owner,
        max_parallel=max_parallel,
    )
    session.add(sweep)
    session.flush()
    for no, member in enumerate(members, start=1):
        runs.submit(
            session,
            member.recipe,
            name=run_name(name, no, member.label),
            project=project,
            owner=owner,
            planned=member.figures,
            terms=terms,
            labels=labels,
            place=runs.Place(sweep.id, no, member.overrides, held=max_parallel is not None and no > max_parallel),
        )
    if idempotency is not None:
        session.execute(
            update(IdempotencyKey)
            .where(IdempotencyKey.principal == idempotency.principal, IdempotencyKey.key == idempotency.key)
            .values(sweep_id=sweep.id)
        )
    session.refresh(sweep)
    return Submission(sweep, created=True)


def run_name(sweep: str, no: int, label: str) -> str:
    """The name of a run: its sweep, its number and what it changes, cut to the length of a name."""
    text = f"{sweep} {no}: {label}"
    return text if len(text) <= NAME_CHARS else text[: NAME_CHARS - 1] + "…"


def ask(session: Session, sweep_id: str, wish: Wish) -> None:
    """Ask something of every run that is not finished: of all, or of none. `carry_out` does it. Raises Conflict if all have ended."""
    query = select(Run).where(Run.sweep_id == sweep_id, Run.finished_at.is_(None), Run.deleted_at.is_(None)).order_by(Run.id)
    found = session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)).all()
    if not found:
        raise Conflict(f"all runs of sweep {sweep_id} have ended")
    for run in found:
        run.wish = wish


def carry_out(factory: SessionFactory, sweep_id: str, *, within_s: float = math.inf) -> int:
    """Do what was asked, run by run, each in a transaction of its own. What takes longer is left to the next tick.

    256 runs in one transaction would be locked for many seconds. Returns how many runs were reached.
    """
    until = time.monotonic() + within_s
    with factory() as session:
        waiting = select(Run.id).where(Run.sweep_id == sweep_id, Run.wish.is_not(None)).order_by(Run.sweep_no)
        due = session.scalars(waiting).all()
    for place, run_id in enumerate(due):
        if time.monotonic() > until:
            return place
        with factory.begin() as session:
            _carry_out(session, run_id)
    return len(due)


def _carry_out(session: Session, run_id: str) -> None:
    with gate(session, run_id) as g:
        wish, desired = g.run.wish, g.run.desired
        g.run.wish = None
        if g.run.status.is_finished or wish is None:
            return
    if wish is Wish.PAUSE and desired is Desired.RUN:
        runs.pause(session, run_id)
    elif wish is Wish.RESUME and desired is Desired.PAUSE:
        runs.resume(session, run_id)
    elif wish is Wish.CANCEL and desired is not Desired.CANCEL:
        runs.cancel(session, run_id)
    elif wish is Wish.ABORT:
        runs.cancel(session, run_id, now=True)


def change(
    session: Session,
    sweep_id: str,
    *,
    name: str | None = None,
    max_parallel: int | None = None,
    archived: bool | None = None,
) -> None:
    """Change a sweep; None leaves a thing as it is. Its runs are archived with it. Raises NotFound, Conflict."""
    sweep = locked(session, sweep_id)
    sweep.name = sweep.name if name is None else name
    sweep.max_parallel = sweep.max_parallel if max_parallel is None else max_parallel
    if archived is None:
        return
    for run in _locked_runs(session, sweep_id):
        if archived and not run.status.is_finished:
            raise Conflict(
                f"run {run.id} of sweep {sweep_id} is {run.status}, so the sweep cannot be archived; cancel it first"
            )
        runs.describe(session, run.id, archived=archived)
    sweep.archived_at = session.scalar(select(func.clock_timestamp())) if archived else None


def delete(session: Session, sweep_id: str) -> None:
    """Delete a sweep with all its runs and their checkpoints. Raises NotFound, and Conflict if one of them cannot be deleted."""
    sweep = locked(session, sweep_id)
    for run in _locked_runs(session, sweep_id):
        runs.delete(session, run.id)
    sweep.deleted_at = session.scalar(select(func.clock_timestamp()))


def tick(factory: SessionFactory, *, timing: Timing = DEFAULT) -> int:
    """Do what users asked of sweeps, compare their runs, stop those that fall behind, and release held ones. Returns how many runs changed.

    Call it every second. A sweep that cannot be worked on does not keep the others waiting; its error is raised at the end.
    """
    with factory.begin() as session:
        if not leading(session, "sweeps", timing):
            return 0
        query = select(Run.sweep_id).where(Run.sweep_id.is_not(None), Run.finished_at.is_(None)).distinct()
        active = sorted(sweep_id for sweep_id in session.scalars(query) if sweep_id is not None)
    changed, errors = 0, []
    for sweep_id in active:
        try:
            changed += carry_out(factory, sweep_id)
            with factory.begin() as session:
                changed += early_stopping.compare(session, locked(session, sweep_id))
            with factory.begin() as session:
                changed += _release(session, locked(session, sweep_id))
        except Exception as err:
            errors.append(err)
    if errors:
        raise errors[0]
    return changed


def locked(session: Session, sweep_id: str) -> Sweep:
    """The sweep, locked until the transaction ends. Raises NotFound."""
    query = select(Sweep).where(Sweep.id == sweep_id).with_for_update(key_share=True)
    sweep = session.scalars(query.execution_options(populate_existing=True)).first()
    if sweep is None:
        raise NotFound(f"there is no sweep {sweep_id!r}")
    return sweep


def _release(session: Session, sweep: Sweep) -> int:
    """Release as many held runs as may run beside the others. Paused runs take no place."""
    of_sweep = (Run.sweep_id == sweep.id, Run.finished_at.is_(None))
    held = session.scalars(select(Run.id).where(*of_sweep, Run.held, Run.desired == Desired.RUN).order_by(Run.sweep_no)).all()
    if not held:
        return 0
    going = session.scalar(select(func.count()).where(*of_sweep, ~Run.held, Run.status != RunStatus.PAUSED))
    free = len(held) if sweep.max_parallel is None else max(0, sweep.max_parallel - (going or 0))
    for run_id in sorted(held[:free]):
        with gate(session, run_id) as g:
            g.run.held = False
            g.note("run_released", None, {"sweep": sweep.id})
    return len(held[:free])


def _locked_runs(session: Session, sweep_id: str) -> list[Run]:
    """The sweep's runs that are not deleted, locked in the order of their ids."""
    query = select(Run).where(Run.sweep_id == sweep_id, Run.deleted_at.is_(None)).order_by(Run.id)
    return list(session.scalars(query.with_for_update(key_share=True).execution_options(populate_existing=True)))
