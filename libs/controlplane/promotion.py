"""Promotion of checkpoints. The inference service serves promoted checkpoints."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controlplane.errors import Conflict
from controlplane.models import Artifact, Checkpoint, Stage
from controlplane.retention import run_of
from controlplane.transitions import Gate, gate
from nanochat.config.recipe import Recipe
from nanochat.planning import graph

TOKENIZER = "tokenizer"  # name of the artifact that every model of a run is served with


def promote(session: Session, checkpoint_id: str) -> Checkpoint:
    """Promote a checkpoint. Raises NotFound, and Conflict if it was deleted or its run has no tokenizer."""
    run_id = run_of(session, checkpoint_id)
    with gate(session, run_id) as g:
        checkpoint = session.get_one(Checkpoint, checkpoint_id, populate_existing=True)
        if checkpoint.deleted_at is not None:
            raise Conflict(f"checkpoint {checkpoint_id} was deleted to free disk space; promote a newer one of its stage")
        if session.scalar(select(func.count()).where(Artifact.run_id == run_id, Artifact.name == TOKENIZER)) == 0:
            raise Conflict(f"run {run_id} has no tokenizer, and its checkpoints cannot be served without one")
        _promote(g, checkpoint)
    return checkpoint


def demote(session: Session, checkpoint_id: str) -> Checkpoint:
    """Take a promotion back. Demoting again has no effect. Raises NotFound."""
    run_id = run_of(session, checkpoint_id)
    with gate(session, run_id) as g:
        checkpoint = session.get_one(Checkpoint, checkpoint_id, populate_existing=True)
        if checkpoint.promoted_at is not None:
            checkpoint.promoted_at = None
            g.note(
                "demoted", session.get_one(Stage, checkpoint.stage_id), {"checkpoint": checkpoint.id, "step": checkpoint.step}
            )
    return checkpoint


def promote_final(g: Gate, stage: Stage) -> None:
    """Promote the final checkpoint of a stage that succeeded, if its model is a chat model or, in a run without one, the last."""
    recipe = Recipe.model_validate(g.run.config)
    if not any(definition.promotes for definition in graph.stages(recipe) if definition.name == stage.name):
        return
    query = (
        select(Checkpoint)
        .where(Checkpoint.stage_id == stage.id, Checkpoint.final)
        .order_by(Checkpoint.created_at.desc(), Checkpoint.step.desc())
        .limit(1)
    )
    checkpoint = g.session.scalars(query).first()
    if checkpoint is not None:
        _promote(g, checkpoint)


def _promote(g: Gate, checkpoint: Checkpoint) -> None:
    if checkpoint.promoted_at is None:
        checkpoint.promoted_at, checkpoint.delete_after = g.now(), None
        stage = g.session.get_one(Stage, checkpoint.stage_id)
        g.note("promoted", stage, {"checkpoint": checkpoint.id, "step": checkpoint.step, "path": checkpoint.path})
