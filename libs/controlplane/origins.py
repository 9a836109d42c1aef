"""The models of earlier runs, by the ids with which a recipe's section `from` names them."""

from __future__ import annotations

import re
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.orm import Session

from controlplane import access, retention, views
from controlplane.errors import NotFound
from controlplane.models import Checkpoint
from nanochat.config.from_spec import FromSpec
from nanochat.config.recipe import Recipe
from nanochat.planning import origin

_ID = re.compile(r"[cr]_[0-9a-f]{16}")


def places(session: Session, start: FromSpec, project: str) -> dict[str, str]:
    """The folders of the model and its tokenizer, as overrides of a recipe that names a checkpoint or a run of this project.

    Empty if it names no id but a folder. Raises NotFound.
    """
    if not _ID.fullmatch(start.model):
        return {}
    if start.model.startswith("c_"):
        checkpoint = session.get_one(Checkpoint, access.checkpoint_id(session, project, start.model))
        if checkpoint.deleted_at is not None:
            raise NotFound(f"checkpoint {start.model} was deleted to free disk space")
        run, model = checkpoint.run_id, checkpoint.path
    else:
        run = access.run_id(session, project, start.model)
        model = _model_of(session, run, start)
    tokenizer = start.tokenizer or _first(session, run, ("start", "tok_train"), "tokenizer")
    return {"from.model": model, **({"from.tokenizer": tokenizer} if tokenizer else {})}


def located(session: Session, recipe: Recipe, project: str) -> Recipe:
    """The recipe, with folders where it names a checkpoint or a run of this project. Raises NotFound."""
    if recipe.from_ is None:
        return recipe
    found = {path.removeprefix("from."): folder for path, folder in places(session, recipe.from_, project).items()}
    return recipe.model_copy(update={"from_": recipe.from_.model_copy(update=found)})


def keep(session: Session, recipe: Recipe) -> None:
    """Pin the checkpoint from which a new run starts, so that it is there when its turn comes."""
    if recipe.from_ is None:
        return
    query = select(Checkpoint.id).where(Checkpoint.path == recipe.from_.model, Checkpoint.deleted_at.is_(None))
    for checkpoint in session.scalars(query.limit(1)).all():
        retention.pin(session, checkpoint)


def _model_of(session: Session, run: str, start: FromSpec) -> str:
    stages = origin.sources(start.first)
    found = _first(session, run, stages, "model")
    if found is None:
        raise NotFound(f"run {run} has no model for {start.first} to start from: no finished {' or '.join(stages)}")
    return found


def _first(session: Session, run: str, stages: list[str] | tuple[str, ...], name: str) -> str | None:
    for stage in stages:
        with suppress(NotFound):  # a run need not have every stage
            if artifact := views.artifact(session, run, stage, name):
                return artifact.path
    return None
