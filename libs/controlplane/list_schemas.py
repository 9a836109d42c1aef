"""Read models of the list of runs, in the shape in which the HTTP API answers them."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from controlplane.lifecycle import Reason, StageStatus
from controlplane.schemas import BudgetView, Latest, ProgressView, RunHead, StageName


class CurrentStage(BaseModel):
    """The stage that a run is busy with: the last one that is at work, else the last that waits, is paused or failed."""

    name: StageName
    status: StageStatus = Field(description="Status of the stage.")
    progress: ProgressView | None = Field(description="How far its newest attempt is; null before the first report.")
    latest: Latest


class RunFigures(BaseModel):
    """The figures by which runs are told apart. Each is null until it was measured, or if it is not finite."""

    tok_per_s: float | None = Field(description="Tokens per second that the last training stage to report it reported last.")
    val_bpb: float | None = Field(
        description="Bits per byte on the validation text: of the base evaluation, before it the newest of pretraining."
    )
    core: float | None = Field(description="CORE: of the base evaluation, before it the newest of pretraining.")
    chatcore: float | None = Field(description="ChatCORE of the last chat evaluation.")


class RunSummary(RunHead):
    """One run as a list shows it."""

    archived_at: datetime | None = Field(description="When it was archived; null if it is not.")
    sweep_id: str | None = Field(description="Id of the sweep that it belongs to; null if there is none.")
    forked_from: str | None = Field(description="Id of the run whose work it took over; null if there is none.")
    priority: int = Field(description="Priority of its stages in the queue; a greater one goes first.")
    stages_done: int = Field(description="Stages that have succeeded.")
    stages_total: int = Field(description="Stages of the run.")
    current: CurrentStage | None = Field(description="The stage that the run is busy with; null if there is none.")
    reason: Reason | None = Field(
        description="Why it does not simply run: the reason of the stage that failed, waits for a retry, stops, is paused or was "
        "cancelled, the first of these that there is; null if none is."
    )
    why: str = Field(description="The same, or what it waits for, in words for people; empty if there is nothing to say.")
    queue_position: int | None = Field(description="Its first turn in the queue, counted from 1; null if no stage is queued.")
    figures: RunFigures = Field(description="Its newest figures.")
    budget: BudgetView = Field(description="What the run may use and has used.")


class RunPage(BaseModel):
    """A page of runs."""

    items: list[RunSummary] = Field(description="Runs, in the order that was asked for.")
    next_cursor: str | None = Field(description="Pass this as `cursor` to get the next page; null on the last one.")
