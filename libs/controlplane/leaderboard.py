"""Finished runs by their figures, as rows of a table that has published models too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from controlplane import budgets, run_facts
from controlplane.lifecycle import RunStatus
from controlplane.models import Attempt, Checkpoint, Run, Stage
from nanochat.planning.graph import STAGES, TRAINED

CHAT = tuple(stage.name for stage in STAGES if stage.promotes)


class Order(StrEnum):
    """What the rows are sorted by; a minus means descending. Rows without the figure come last."""

    BPB = "val_bpb"
    BPB_DESCENDING = "-val_bpb"
    CORE = "core"
    CORE_DESCENDING = "-core"
    CHATCORE = "chatcore"
    CHATCORE_DESCENDING = "-chatcore"
    HOURS = "hours"
    HOURS_DESCENDING = "-hours"
    USD = "usd"
    USD_DESCENDING = "-usd"
    PARAMS = "params"
    PARAMS_DESCENDING = "-params"
    TOKENS = "tokens"
    TOKENS_DESCENDING = "-tokens"
    FINISHED = "finished_at"
    FINISHED_DESCENDING = "-finished_at"


class LeaderboardRow(BaseModel):
    """A finished run of the project, or a published model. A figure is null if it is not known."""

    reference: bool = Field(description="Whether it is a published model instead of a run.")
    name: str = Field(description="Name of the run or of the model.")
    run_id: str | None = Field(default=None, description="Id of the run; null for a reference.")
    recipe: str | None = Field(default=None, description="Name of the run's recipe.")
    labels: list[str] = Field(default=[], description="Labels of the run.")
    val_bpb: float | None = Field(description="Bits per byte on the validation text.")
    core: float | None = Field(description="CORE.")
    core_estimate: bool = Field(
        default=False, description="Whether CORE was measured on a part of its examples, so that it compares only roughly."
    )
    chatcore: float | None = Field(default=None, description="ChatCORE of the last chat model.")
    hours: float | None = Field(description="Hours in which a stage of the run was live; of a reference what is published.")
    usd: float | None = Field(description="US dollars; null if the price of the GPUs is unknown.")
    tokens: int | None = Field(default=None, description="Tokens that pretraining read.")
    params: str | None = Field(default=None, description="Parameters of the model, for people, such as 561M.")
    params_exact: int | None = Field(default=None, description="Parameters of the model.")
    hardware: str = Field(description="GPUs that it was trained on, for people; empty if none or unknown.")
    gpu: str | None = Field(default=None, description="Name of the GPU as the driver gives it; null without GPUs.")
    gpus: int | None = Field(default=None, description="Number of GPUs; 0 without GPUs.")
    finished_at: datetime | None = Field(default=None, description="When the run ended.")
    checkpoint_id: str | None = Field(default=None, description="Id of its final chat model, if that is still on disk.")
    promoted: bool = Field(default=False, description="Whether the inference service is offered that model.")
    source: str = Field(default="", description="Where the figures of a reference come from.")


class LeaderboardView(BaseModel):
    """Finished runs and published models."""

    items: list[LeaderboardRow] = Field(description="Runs and references together, in the order that was asked for.")


def rows(session: Session, project: str, *, sort: Order, limit: int) -> list[LeaderboardRow]:
    """The first `limit` runs of the project in this order, in five queries."""
    plan = Run.planned
    chosen = select(
        *(Run.id, Run.name, Run.recipe, Run.labels, Run.usd_per_hour, Run.finished_at),
        plan["params"].as_integer().label("params"),
        plan["stages"].label("stages"),
        Run.config["base_eval"]["core_max_per_task"].as_integer().label("core_max_per_task"),
    ).where(Run.project == project, Run.status == RunStatus.SUCCEEDED, Run.deleted_at.is_(None), Run.archived_at.is_(None))
    runs = session.execute(chosen).all()
    facts = run_facts.facts(session, [run.id for run in runs])
    costly = sort.removeprefix("-") in ("hours", "usd")
    used = _used(session, runs) if costly else {}
    found = ordered([_row(run, facts[run.id], used.get(run.id)) for run in runs], sort)[:limit]
    _complete(session, found, {run.id: run for run in runs}, used)
    return found


def ordered(rows: Sequence[LeaderboardRow], sort: Order) -> list[LeaderboardRow]:
    """Rows without the figure come last; those with equal ones are in the order of their names."""
    key = "params_exact" if sort.endswith("params") else sort.removeprefix("-")
    having = [row for row in rows if getattr(row, key) is not None]
    having.sort(key=lambda row: row.name)
    having.sort(key=lambda row: getattr(row, key), reverse=sort.startswith("-"))
    return having + sorted((row for row in rows if getattr(row, key) is None), key=lambda row: row.name)


def _used(session: Session, runs: Sequence[Row[*tuple[Any, ...]]]) -> dict[str, budgets.Usage]:
    return budgets.usages(session, {run.id: run.usd_per_hour for run in runs})


def _row(run: Row[*tuple[Any, ...]], facts: run_facts.Facts, used: budgets.Usage | None) -> LeaderboardRow:
    pretraining: dict[str, Any] = next((stage for stage in run.stages or () if stage["stage"] == "base_train"), {})
    return LeaderboardRow(
        reference=False,
        name=run.name,
        run_id=run.id,
        recipe=run.recipe,
        labels=run.labels,
        val_bpb=facts.val_bpb,
        core=facts.core,
        core_estimate=facts.core is not None and (run.core_max_per_task or 0) > 0,
        chatcore=facts.chatcore,
        hours=used.hours if used else None,
        usd=used.usd if used else None,
        tokens=pretraining.get("tokens"),
        params_exact=run.params,
        hardware="",
        finished_at=run.finished_at,
    )


def _complete(
    session: Session, rows: Sequence[LeaderboardRow], runs: dict[str, Row[*tuple[Any, ...]]], used: dict[str, budgets.Usage]
) -> None:
    """Fill in what only the shown rows need: hours, dollars, hardware and the chat model."""
    ids = [row.run_id for row in rows if row.run_id]
    used = used or _used(session, [runs[run_id] for run_id in ids])
    machines, models = _machines(session, ids), _models(session, ids)
    for row in rows:
        assert row.run_id is not None
        row.hours, row.usd = used[row.run_id].hours, used[row.run_id].usd
        if (machine := machines.get(row.run_id)) is not None:
            row.gpus, row.gpu = machine.gpus, machine.gpu_name or None
            row.hardware = f"{machine.gpus} × {machine.gpu_name}" if machine.gpus else ""
        if (model := models.get(row.run_id)) is not None:
            row.checkpoint_id, row.promoted = model.id, model.promoted_at is not None


def _machines(session: Session, ids: Sequence[str]) -> dict[str, Row[*tuple[Any, ...]]]:
    """The GPUs of the last attempt of each run's first training."""
    query = (
        select(Stage.run_id, Attempt.gpus, Attempt.gpu_name)
        .ext(distinct_on(Stage.run_id))
        .join(Attempt, Attempt.stage_id == Stage.id)
        .where(Stage.run_id.in_(ids), Stage.name.in_(TRAINED))
        .order_by(Stage.run_id, Stage.position, Attempt.no.desc())
    )
    return {row.run_id: row for row in session.execute(query)}


def _models(session: Session, ids: Sequence[str]) -> dict[str, Row[*tuple[Any, ...]]]:
    """The last chat model of each run."""
    query = (
        select(Checkpoint.run_id, Checkpoint.id, Checkpoint.promoted_at)
        .ext(distinct_on(Checkpoint.run_id))
        .join(Stage, Stage.id == Checkpoint.stage_id)
        .where(Checkpoint.run_id.in_(ids), Checkpoint.final, Checkpoint.deleted_at.is_(None), Stage.name.in_(CHAT))
        .order_by(Checkpoint.run_id, Stage.position.desc(), Checkpoint.created_at.desc())
    )
    return {row.run_id: row for row in session.execute(query)}
