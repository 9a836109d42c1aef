"""Read models, shaped as the HTTP API answers. Times are UTC; `t` is unix seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from controlplane.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus


class ProgressView(BaseModel):
    done: float
    total: float | None = None
    unit: str = ""
    eta_s: float | None = None
    note: str | None = None


class AttemptView(BaseModel):
    no: int
    status: AttemptStatus
    reason: Reason | None
    message: str
    worker: str
    started_at: datetime | None
    finished_at: datetime | None
    exit_code: int | None
    resumed_from_step: int | None = Field(description="null: from the beginning")


class ArtifactView(BaseModel):
    name: str
    path: str
    sha256: str


class StageView(BaseModel):
    name: str
    kind: str
    queue: str
    status: StageStatus
    reason: Reason | None
    message: str
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressView | None
    latest: dict[str, float | str] = Field(description='newest value of each metric; "nan", "inf", "-inf" are words')
    attempts: list[AttemptView]
    artifacts: list[ArtifactView]


class CurrentStage(BaseModel):
    """What a run is busy with: its furthest stage that has begun and not ended."""

    name: str
    status: StageStatus
    progress: ProgressView | None
    latest: dict[str, float | str]


class RunSummary(BaseModel):
    id: str
    name: str
    recipe: str
    status: RunStatus
    detail: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    stages_done: int
    stages_total: int
    current: CurrentStage | None


class RunPage(BaseModel):
    items: list[RunSummary]
    next_cursor: str | None


class RunView(BaseModel):
    id: str
    name: str
    recipe: str
    status: RunStatus
    detail: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    config: dict[str, Any]
    stages: list[StageView]


class EventView(BaseModel):
    id: int
    stage: str | None
    attempt: int | None
    seq: int | None = Field(description="place in the attempt's own log; null for what the platform decided")
    t: float
    kind: str
    data: dict[str, Any]


class EventPage(BaseModel):
    items: list[EventView]
    next_after: int


class LogView(BaseModel):
    id: int
    stage: str
    attempt: int
    t: float
    line: str


class LogPage(BaseModel):
    items: list[LogView]
    next_after: int


class PointView(BaseModel):
    """One bucket of neighbouring points; a bucket of one is the point itself."""

    step: int = Field(description="of the newest point in the bucket")
    t: float
    min: float | None = Field(description="of the finite values; null when there is none")
    max: float | None
    last: float | None = Field(description="null when the newest value is not finite")


class GapView(BaseModel):
    """A new attempt went on from here; what earlier ones had recorded beyond it is superseded."""

    step: int
    attempt: int
    t: float


class SeriesView(BaseModel):
    stage: str
    key: str
    points: list[PointView]
    gaps: list[GapView]


class MetricsView(BaseModel):
    series: list[SeriesView]


class CheckpointView(BaseModel):
    id: str
    stage: str
    attempt: int
    step: int
    path: str
    sha256: str
    bytes: int
    final: bool
    val_bpb: float | None
    created_at: datetime
    promoted_at: datetime | None


class ContentView(BaseModel):
    path: str
    sha256: str


class ModelView(BaseModel):
    """A promoted checkpoint and the tokenizer it was trained with."""

    id: str
    run_id: str
    run_name: str
    stage: str
    step: int
    created_at: datetime
    model: ContentView
    tokenizer: ContentView


class WorkerView(BaseModel):
    id: str
    queue: str
    hostname: str
    status: str = Field(description="idle, busy, draining or lost")
    slots: int
    gpus: int
    gpu_name: str
    heartbeat_at: datetime
    attempts: list[str] = Field(description="what it holds, as run_id/stage/attempt")
