"""Who may do what: roles, and projects, whose runs are invisible to keys of other projects."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from controlplane.errors import NotFound
from controlplane.models import Checkpoint, Run, Sweep

AMBIGUOUS = 5  # ids that a message about an ambiguous name lists


def run_id(session: Session, project: str, ref: str) -> str:
    """The id of the project's run with this id, or with this name if no other run of the project has it. Raises NotFound."""
    found = session.scalar(select(Run.id).where(_visible(project), Run.id == ref))
    if found is not None:
        return found
    query = select(Run.id).where(_visible(project), Run.name == ref).order_by(Run.created_at.desc()).limit(AMBIGUOUS)
    named = session.scalars(query).all()
    if not named:
        raise NotFound(f"there is no run {ref!r}")
    if len(named) > 1:
        raise NotFound(f"several runs are named {ref!r}; give the id instead: {', '.join(named)}")
    return named[0]


def checkpoint_id(session: Session, project: str, checkpoint: str) -> str:
    """The id, if the checkpoint belongs to a run of the project. Raises NotFound."""
    query = select(Checkpoint.id).join(Run, Run.id == Checkpoint.run_id)
    if session.scalar(query.where(Checkpoint.id == checkpoint, _visible(project))) is None:
        raise NotFound(f"there is no checkpoint {checkpoint!r}")
    return checkpoint


def sweep_id(session: Session, project: str, ref: str) -> str:
    """The id of the project's sweep with this id, or with this name if no other sweep of the project has it. Raises NotFound."""
    query = select(Sweep.id).where(Sweep.project == project, Sweep.deleted_at.is_(None))
    found = session.scalars(query.where(Sweep.id == ref)).all()
    found = found or session.scalars(query.where(Sweep.name == ref).order_by(Sweep.created_at.desc()).limit(AMBIGUOUS)).all()
    if not found:
        raise NotFound(f"there is no sweep {ref!r}")
    if len(found) > 1:
        raise NotFound(f"several sweeps are named {ref!r}; give the id instead: {', '.join(found)}")
    return found[0]


def _visible(project: str) -> ColumnElement[bool]:
    return and_(Run.project == project, Run.deleted_at.is_(None))
