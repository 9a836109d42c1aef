"""The control API's answers about runs, their stages and their records. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

FINISHED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


class Progress(BaseModel):
    done: float
    total: float | None = None
    unit: str = ""
    eta_s: float | None = None
    note: str | None = None

    @property
    def fraction(self) -> float:
        """Between 0 and 1; 0 while the total is unknown."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total else 0.0


class Attempt(BaseModel):
    no: int
    status: str
    reason: str | None = None
    message: str = ""
    worker: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    resumed_from_step: int | None = None


class ArtifactRef(BaseModel):
    name: str
    path: str
    sha256: str


class Waiting(BaseModel):
    """Why a stage has not begun, and its turn in the queue if it is queued."""

    position: int | None = None
    why: str


class Queued(BaseModel):
    """A stage that waits for a worker."""

    run_id: str
    run_name: str
    stage: str
    queue: str
    position: int
    priority: int
    why: str


class Budget(BaseModel):
    """What a run may use and has used; None: no limit, or no known price."""

    max_usd: float | None = None
    max_hours: float | None = None
    used_usd: float | None = None
    used_hours: float = 0.0
    used_gpu_hours: float = 0.0


class Stage(BaseModel):
    name: str
    kind: str
    queue: str
    status: str
    reason: str | None = None
    message: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    waiting: Waiting | None = None
    progress: Progress | None = None
    latest: dict[str, float | str | None] = Field(
        default_factory=dict, description='newest value of each metric; "nan" and "inf" are strings'
    )
    attempts: list[Attempt] = []
    artifacts: list[ArtifactRef] = []


class _RunHead(BaseModel):
    id: str
    name: str
    recipe: str
    labels: list[str] = []
    status: str
    detail: str = ""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    fraction: float = 0.0  # of the whole run
    eta_s: float | None = None  # until the end of the whole run

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED


class CurrentStage(BaseModel):
    """The stage that a run is working on."""

    name: str
    status: str
    progress: Progress | None = None
    latest: dict[str, float | str] = {}


class RunFigures(BaseModel):
    """The newest figures of a run; None: not measured, or not finite."""

    tok_per_s: float | None = None
    val_bpb: float | None = None
    core: float | None = None
    chatcore: float | None = None


class RunSummary(_RunHead):
    """A run as a list shows it. `why` says in words why it does not go on; it is empty otherwise."""

    archived_at: datetime | None = None
    sweep_id: str | None = None
    forked_from: str | None = None
    priority: int = 0
    stages_done: int
    stages_total: int
    current: CurrentStage | None = None
    reason: str | None = None
    why: str = ""
    queue_position: int | None = None
    figures: RunFigures = RunFigures()
    budget: Budget = Budget()


class RunGone(BaseModel):
    """A run that was deleted."""

    id: str


class Run(_RunHead):
    notes: str = ""
    archived_at: datetime | None = None
    forked_from: str | None = None
    config: dict[str, Any]
    stages: list[Stage]
    priority: int = 0
    budget: Budget = Budget()

    def stage(self, name: str) -> Stage:
        """Raises KeyError if the run has no such stage."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)


class RunPage(BaseModel):
    items: list[RunSummary]
    next_cursor: str | None = None


class MetricPoint(BaseModel):
    """One bucket of a curve: its last step, the time of that step, and its minimum, maximum and last value (None: not finite)."""

    step: int
    t: float
    min: float | None
    max: float | None
    last: float | None
    nonfinite: int = 0  # values in the bucket that are not finite


class MetricGap(BaseModel):
    """A new attempt resumed at this step. What earlier attempts recorded after it no longer counts."""

    step: int
    attempt: int
    t: float


class MetricSeries(BaseModel):
    stage: str
    key: str
    points: list[MetricPoint]
    bucketed: bool = False  # True: some points share a bucket; a smaller range of steps shows more of them
    gaps: list[MetricGap] = []
    tokens_per_step: float | None = None  # None: the stage trains nothing, or its plan does not tell
    flops_per_step: float | None = None


class Event(BaseModel):
    id: int
    stage: str | None = None
    attempt: int | None = None
    seq: int | None = None
    t: float
    kind: str
    data: dict[str, Any]


class EventPage(BaseModel):
    items: list[Event]
    next_after: int


class LogLine(BaseModel):
    id: int
    stage: str
    attempt: int
    t: float
    line: str


class LogPage(BaseModel):
    items: list[LogLine]
    next_after: int


class StageInfo(BaseModel):
    """One row of the platform's table of stages."""

    name: str
    kind: str
    title: str
    short: str
    trains: str | None = None


class MetricInfo(BaseModel):
    """One row of the platform's table of metrics."""

    key: str
    label: str
    unit: str = ""
    short: str
    plot: str | None = None
    column: bool = False


class Catalog(BaseModel):
    """Every stage, metric and kind of event, with the names under which to show them."""

    stages: list[StageInfo] = []
    metrics: list[MetricInfo] = []
    event_kinds: list[str] = []

    @property
    def columns(self) -> list[MetricInfo]:
        """The metrics whose newest value a table of stages shows."""
        return [metric for metric in self.metrics if metric.column]
