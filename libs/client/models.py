"""The answers of the control API. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from client.machine_models import DiskState, GpuState

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


class ComparedStage(BaseModel):
    """A stage as it was planned and as it went; None: not known."""

    stage: str
    planned_hours: float | None = None
    planned_usd: float | None = None
    planned_tok_per_s: float | None = None
    planned_source: str | None = None
    hours: float
    usd: float | None = None
    tok_per_s: float | None = None
    attempts: int


class Comparison(BaseModel):
    """A run's plan against what happened."""

    run_id: str
    stages: list[ComparedStage]


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


class Located(BaseModel):
    """An artifact's directory and the digest of its manifest."""

    path: str
    sha256: str


class Model(BaseModel):
    """A promoted checkpoint: the inference service can serve it."""

    id: str
    run_id: str
    run_name: str
    stage: str
    step: int
    created_at: datetime
    model: Located
    tokenizer: Located


class Checkpoint(BaseModel):
    id: str
    stage: str
    attempt: int
    step: int
    path: str
    sha256: str
    bytes: int
    final: bool
    val_bpb: float | None = None
    created_at: datetime
    promoted_at: datetime | None = None
    pinned_at: datetime | None = None


class GarbageItem(BaseModel):
    """A checkpoint that nothing needs. `delete_after` is None until it has been marked."""

    id: str
    run_id: str
    run_name: str
    stage: str
    step: int
    path: str
    bytes: int
    delete_after: datetime | None = None


class Garbage(BaseModel):
    items: list[GarbageItem]
    bytes: int


class LineageNode(BaseModel):
    """A stage, or an artifact, a checkpoint or a score that a stage made."""

    id: str
    kind: str
    label: str
    status: str | None = None
    sha256: str | None = None
    path: str | None = None


class LineageEdge(BaseModel):
    """`target` was made by or from `source`."""

    source: str
    target: str


class Lineage(BaseModel):
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    mermaid: str


class HeldStage(BaseModel):
    """What a worker runs; None for a run of another project."""

    run_id: str | None
    run_name: str | None
    stage: str | None
    attempt: int | None
    started_at: datetime
    progress: Progress | None


class Worker(BaseModel):
    id: str
    queue: str
    hostname: str = ""
    status: str
    slots: int = 1
    gpus: int = 0
    gpu_name: str = ""
    heartbeat_at: datetime
    attempts: list[str] = []
    runs: list[HeldStage] = []
    devices: list[GpuState] = []
    disks: list[DiskState] = []


class RecipeInfo(BaseModel):
    name: str
    description: str = ""
    config: dict[str, Any] = Field(default_factory=dict, description="the whole recipe, with all defaults")


class PlannedStage(BaseModel):
    name: str
    kind: str
    queue: str
    needs: list[str]


ESTIMATE = "estimate"  # the source of figures that no finished run has measured


class StageFigures(BaseModel):
    """One training stage. None: not known before the data is there, or not known for this hardware."""

    stage: str
    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None
    device_batch_size: int
    accumulation: int
    peak_gib: float | None = None
    fits: bool | None = None
    estimated: bool = False
    tok_per_s: float | None = None
    hours: float | None = None
    usd: float | None = None
    source: str = ESTIMATE


class OtherFigures(BaseModel):
    """A stage that trains nothing, as finished runs took it."""

    stage: str
    hours: float
    usd: float | None = None
    source: str


class Figures(BaseModel):
    """Totals of a plan. Hours and dollars are None where nothing is known of the hardware's speed."""

    world_size: int
    gpu: str | None = None
    gpu_memory_gib: float | None = None
    peak_tflops: float | None = None
    mfu: float | None = None
    usd_per_hour: float | None = None
    params: int
    flops_per_token: int
    total_flops: float
    hours: float | None = None
    usd: float | None = None
    stages: list[StageFigures]
    others: list[OtherFigures] = []


class Plan(BaseModel):
    """The plan of a run: its stages in order, their length, memory use and cost."""

    hash: str = ""
    recipe: str
    config: dict[str, Any]
    stages: list[PlannedStage]
    figures: Figures
    warnings: list[str] = []


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
    """Every stage and every metric, with the names under which to show them."""

    stages: list[StageInfo] = []
    metrics: list[MetricInfo] = []

    @property
    def columns(self) -> list[MetricInfo]:
        """The metrics whose newest value a table of stages shows."""
        return [metric for metric in self.metrics if metric.column]


class OwnKey(BaseModel):
    """The key that a client sends."""

    id: str
    name: str
    role: str
    project: str
    expires_at: datetime | None


class Key(OwnKey):
    """An API key, without its secret."""

    created_at: datetime
    revoked_at: datetime | None


class NewKey(Key):
    """A new key. Its secret is shown only once."""

    secret: str


class AuditEntry(BaseModel):
    """A request that asked for a change. `outcome` is `done`, the kind of the refusal, or None if it never ended."""

    id: int
    at: datetime
    key_id: str
    key_name: str
    project: str
    action: str
    target: dict[str, str]
    outcome: str | None
    made: str | None


class AuditPage(BaseModel):
    items: list[AuditEntry]
    next_before: int | None = None
