"""Read models of the ledger, in the shape in which the HTTP API answers them.

Datetimes are UTC; fields named `t` are Unix time in seconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

from controlplane.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus
from controlplane.roles import Role

# Field types with a description, for fields that several models have.
RunId = Annotated[str, Field(description="The run's id: `r_` and 16 hex digits.")]
RunName = Annotated[str, Field(description="The run's name, for people; not unique.")]
RecipeName = Annotated[str, Field(description="Name of the run's recipe.")]
RunState = Annotated[RunStatus, Field(description="The run's status, derived from those of its stages.")]
Detail = Annotated[str, Field(description="What the run is doing or why it ended, in a few words; may be empty.")]
StageName = Annotated[str, Field(description="Name of the stage in the run's graph, such as `chat_eval_sft`.")]
AttemptNo = Annotated[int, Field(description="Number of the stage's attempt, counted from 1.")]
CreatedAt = Annotated[datetime, Field(description="When it was created.")]
StartedAt = Annotated[datetime | None, Field(description="When work on it began; null if it has not begun.")]
FinishedAt = Annotated[datetime | None, Field(description="When it ended; null while it has not ended.")]
Latest = Annotated[
    dict[str, float | str],
    Field(description='Newest value of each metric, by key. "nan", "inf" and "-inf" are sent as strings.'),
]
Directory = Annotated[str, Field(description="Absolute path of the directory, as the machine that wrote it sees it.")]
Digest = Annotated[
    str, Field(description="SHA-256 of the directory's `manifest.json`, which names every file with its digest.")
]
Time = Annotated[float, Field(description="Unix time in seconds.")]
NextAfter = Annotated[int, Field(description="Pass this as `after` to get the items that follow.")]


class ProgressView(BaseModel):
    """How far a stage is."""

    done: float = Field(description="Units done.")
    total: float | None = Field(default=None, description="Units in all; null while that is unknown.")
    unit: str = Field(default="", description="What is counted, such as step or shard.")
    eta_s: float | None = Field(default=None, description="Estimated seconds until the end; null while that is unknown.")
    note: str | None = Field(default=None, description="What the stage is busy with at the moment.")

    @computed_field(description="The share that is done, from 0 to 1; null while the total is unknown.")  # type: ignore[prop-decorator]
    @property
    def fraction(self) -> float | None:
        return min(1.0, max(0.0, self.done / self.total)) if self.total else None


class AttemptView(BaseModel):
    """One try of a stage on one worker."""

    no: AttemptNo
    status: AttemptStatus = Field(description="Status of the attempt.")
    reason: Reason | None = Field(description="Why the attempt ended; null while it is live.")
    message: str = Field(description="The reason in words for people; empty while the attempt is live.")
    worker: str = Field(description="Id of the worker that runs or ran it.")
    started_at: StartedAt
    finished_at: FinishedAt
    exit_code: int | None = Field(description="Exit code of the stage's processes; null if there is none.")
    resumed_from_step: int | None = Field(
        description="Step of the checkpoint that it resumed from; null if it began at the beginning."
    )
    quarantined: int = Field(
        description="Lines of its events file that are not events and were set aside. The first of them are events of the kind "
        "`line_quarantined`, which say why."
    )


class ArtifactView(BaseModel):
    """A published output of a stage: a directory whose content is fixed."""

    name: str = Field(description="Name of the output, such as model or tokenizer.")
    path: Directory
    sha256: Digest


class WaitingView(BaseModel):
    """Why a stage has not begun."""

    position: int | None = Field(default=None, description="Its turn in the queue, counted from 1; null if it is not queued.")
    why: str = Field(description="What it waits for, in words for people.")


class QueuedView(BaseModel):
    """A stage that waits for a worker."""

    run_id: RunId
    run_name: RunName
    stage: StageName
    queue: str = Field(description="Kind of worker that it needs: `cpu` or `gpu`.")
    position: int = Field(description="Its turn in this queue, counted from 1.")
    priority: int = Field(description="Priority of its run; a greater one goes first.")
    owner: str = Field(description="Id of the API key that submitted the run. Owners share the workers fairly.")
    queued_at: datetime = Field(description="Since when it waits.")
    why: str = Field(description="Why it waits, in words for people.")


class BudgetView(BaseModel):
    """What a run may use and has used."""

    max_usd: float | None = Field(description="Budget in US dollars; null if there is none.")
    max_hours: float | None = Field(description="Budget of hours in which a stage is live; null if there is none.")
    usd_per_hour: float | None = Field(description="Price of a GPU for this run; null: that of the table of GPUs.")
    used_usd: float | None = Field(description="Dollars used; null if the price of a GPU is unknown.")
    used_hours: float = Field(description="Hours in which a stage was live.")
    used_gpu_hours: float = Field(description="Hours of GPUs, each counted by itself.")


class ComparedStage(BaseModel):
    """A stage as it was planned and as it went. A planned figure is null if it was not known."""

    stage: StageName
    planned_hours: float | None = Field(description="Hours in the plan; of a training stage, those of its steps.")
    planned_usd: float | None = Field(description="Dollars in the plan, of the same.")
    planned_tok_per_s: float | None = Field(description="Tokens per second in the plan.")
    planned_steps: int | None = Field(description="Optimizer steps in the plan.")
    planned_source: str | None = Field(description="Where the planned figures are from: `estimate`, or which finished runs.")
    hours: float = Field(description="Hours of all its attempts, from claim to end.")
    usd: float | None = Field(description="Dollars of them; null if the price of a GPU is unknown.")
    tok_per_s: float | None = Field(description="Tokens per second that it reported last.")
    mfu: float | None = Field(description="Per cent of the peak that it reported last.")
    attempts: int = Field(description="Attempts that it took.")


class ComparisonView(BaseModel):
    """A run's plan against what happened."""

    run_id: RunId
    stages: list[ComparedStage] = Field(description="All stages in the order of the graph.")


class StageView(BaseModel):
    """One stage of a run with all its attempts."""

    name: StageName
    kind: str = Field(description="What the stage runs, such as `chat_eval`.")
    queue: str = Field(description="Kind of worker that it needs: `cpu` or `gpu`.")
    status: StageStatus = Field(description="Status of the stage.")
    reason: Reason | None = Field(
        description="Why it has this status: the reason of its newest attempt or of a user's request."
    )
    message: str = Field(description="The reason in words for people; may be empty.")
    started_at: StartedAt
    finished_at: FinishedAt
    waiting: WaitingView | None = Field(description="Why it has not begun; null if nothing holds it up.")
    progress: ProgressView | None = Field(description="How far its newest attempt is; null before the first report.")
    latest: Latest
    attempts: list[AttemptView] = Field(description="All attempts, oldest first.")
    artifacts: list[ArtifactView] = Field(description="Its published outputs, the newest of each name.")


class RunHead(BaseModel):
    """What every answer about a run begins with."""

    id: RunId
    name: RunName
    recipe: RecipeName
    labels: list[str] = Field(description="Labels that users gave it.")
    status: RunState
    detail: Detail
    created_at: CreatedAt
    started_at: StartedAt
    finished_at: FinishedAt
    fraction: float = Field(
        description="How far the run is, from 0 to 1. Training counts for nine tenths, by its FLOPs; the other stages share the rest."
    )
    eta_s: float | None = Field(
        description="Estimated seconds until the run ends; null while that is unknown or the run is not at work. It covers training, "
        "and those other stages whose duration finished runs tell."
    )


class RunView(RunHead):
    """One run with its recipe and its stages."""

    notes: str = Field(description="What users wrote about it.")
    archived_at: datetime | None = Field(description="When it was archived; null if it is not.")
    forked_from: str | None = Field(description="Id of the run whose work it took over; null if there is none.")
    sweep_id: str | None = Field(description="Id of the sweep that it belongs to; null if there is none.")
    config: dict[str, Any] = Field(description="The whole recipe as it was resolved at submission.")
    stages: list[StageView] = Field(description="The stages in the order of the graph.")
    priority: int = Field(description="Priority of its stages in the queue; a greater one goes first.")
    budget: BudgetView = Field(description="What the run may use and has used.")


class EventView(BaseModel):
    """Something that a stage reported or that the platform did."""

    id: int = Field(description="Id of the event; later events of the run have greater ids.")
    stage: str | None = Field(description="Name of the stage; null for an event of the run as a whole.")
    attempt: int | None = Field(description="Number of the attempt, counted from 1; null if there is none.")
    seq: int | None = Field(description="Position in the attempt's own event file; null for an event of the platform.")
    t: Time
    kind: str = Field(description="Kind of event, such as `checkpoint` or `stage_status`.")
    data: dict[str, Any] = Field(description="The event's own fields, which depend on its kind.")


class EventGap(BaseModel):
    """Events of a run that are no longer kept. Those that explain the run, such as changes of status and checkpoints, are."""

    events: int = Field(description="Number of events that are no longer kept.")
    last_id: int = Field(description="Id of the last of them.")
    kinds: list[str] = Field(description="Kinds that are not kept for ever.")


class EventPage(BaseModel):
    """A page of events."""

    items: list[EventView] = Field(description="Events, oldest first.")
    gaps: list[EventGap] = Field(description="What is missing after `after` because it is no longer kept; at most one.")
    next_after: NextAfter


class LogView(BaseModel):
    """One line that the processes of a stage printed."""

    id: int = Field(description="Id of the line; later lines of the run have greater ids.")
    stage: StageName
    attempt: AttemptNo
    no: int = Field(description="Number of the line in the attempt's output, counted from 0.")
    t: Time
    line: str = Field(
        description="Text of the line; if it is longer than 4000 characters, the end is cut and the last one is `…`."
    )


class LogGap(BaseModel):
    """The first lines of an attempt, which are no longer kept here. They are still in the attempt's own `stdout.log`."""

    stage: StageName
    attempt: AttemptNo
    lines: int = Field(description="Number of lines that are no longer kept, from the first line on.")


class LogPage(BaseModel):
    """A page of log lines."""

    items: list[LogView] = Field(description="Lines in the order in which they arrived.")
    gaps: list[LogGap] = Field(description="Lines after `after` that are missing because old lines are not kept.")
    next_after: NextAfter


class PointView(BaseModel):
    """One bucket of neighbouring points of a series. A bucket may hold a single point."""

    step: int = Field(description="Step of the newest point in the bucket.")
    t: float = Field(description="Unix time of the newest point, in seconds.")
    min: float | None = Field(description="Smallest finite value in the bucket; null if there is none.")
    max: float | None = Field(description="Largest finite value in the bucket; null if there is none.")
    last: float | None = Field(description="Value of the newest point; null if it is not finite.")
    nonfinite: int = Field(description="Number of values in the bucket that are not finite (NaN or an infinity).")


class GapView(BaseModel):
    """A step at which a new attempt started. Points of earlier attempts beyond this step are superseded and left out."""

    step: int = Field(description="Step that the attempt resumed from; 0 if it started afresh.")
    attempt: AttemptNo
    t: float = Field(description="Unix time at which the attempt started, in seconds.")


class SeriesView(BaseModel):
    """One metric of one stage over its steps."""

    stage: StageName
    key: str = Field(description="Key of the metric, such as loss.")
    points: list[PointView] = Field(description="Buckets in the order of their steps.")
    bucketed: bool = Field(
        description="Whether some buckets hold several points. If so, a smaller range of steps shows more of them."
    )
    gaps: list[GapView] = Field(description="Steps, of those asked for, at which new attempts of the stage started.")
    tokens_per_step: float | None = Field(
        description="Tokens of one step, to draw the series by tokens; null if the stage trains nothing or its plan does not tell."
    )
    flops_per_step: float | None = Field(description="Training FLOPs of one step, in the same way.")


class MetricsView(BaseModel):
    """Metric series of a run."""

    series: list[SeriesView] = Field(description="One series per stage and key, in the order of the stages.")


class CheckpointView(BaseModel):
    """A complete checkpoint of a training stage."""

    id: str = Field(description="The checkpoint's id: `c_` and 16 hex digits.")
    stage: StageName
    attempt: AttemptNo
    step: int = Field(description="Optimizer steps that the model has been trained for in this stage.")
    path: Directory
    sha256: Digest
    bytes: int = Field(description="Size of all its files in bytes.")
    final: bool = Field(description="Whether it is the stage's last checkpoint.")
    val_bpb: float | None = Field(description="Validation loss in bits per byte; null if it was not measured.")
    created_at: CreatedAt
    promoted_at: datetime | None = Field(description="When it was promoted; null if it was not.")
    pinned_at: datetime | None = Field(description="When it was pinned, which keeps it; null if it is not.")


class ContentView(BaseModel):
    """A directory whose content is fixed."""

    path: Directory
    sha256: Digest


class LineageNode(BaseModel):
    """A stage, or what a stage made."""

    id: str = Field(description="A stage's name; `stage.artifact`; the id of a checkpoint; `stage:metric` for a score.")
    kind: Literal["stage", "artifact", "checkpoint", "score"] = Field(description="What it is.")
    label: str = Field(description="Its name for people, with its value if it is a score.")
    status: str | None = Field(default=None, description="Status of a stage.")
    sha256: str | None = Field(default=None, description="Digest of the manifest of an artifact or a checkpoint.")
    path: str | None = Field(default=None, description="Directory of an artifact or a checkpoint.")


class LineageEdge(BaseModel):
    """`target` was made by or from `source`."""

    source: str = Field(description="Id of a node.")
    target: str = Field(description="Id of a node.")


class LineageView(BaseModel):
    """What each artifact, checkpoint and score of a run was made from."""

    nodes: list[LineageNode] = Field(description="Stages, artifacts, checkpoints and scores, in the order of the stages.")
    edges: list[LineageEdge] = Field(description="From what was read to the stage, and from the stage to what it made.")
    mermaid: str = Field(description="The same as text of a Mermaid flowchart.")


class ModelView(BaseModel):
    """A promoted checkpoint and the tokenizer that it was trained with."""

    id: str = Field(description="Id of the checkpoint.")
    run_id: RunId
    run_name: RunName
    stage: StageName
    step: int = Field(description="Optimizer steps that the model has been trained for in this stage.")
    created_at: CreatedAt
    model: ContentView = Field(description="The checkpoint's weights and metadata.")
    tokenizer: ContentView = Field(description="The tokenizer of its run.")


class OwnKeyView(BaseModel):
    """The key that a request was sent with."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The key's id: `k_` and 16 hex digits. It is no secret.")
    name: str = Field(description="Whom or what the key is for.")
    role: Role = Field(
        description="What the key may do: `viewer` reads, `operator` also steers runs, `admin` also manages keys."
    )
    project: str = Field(description="Project whose runs the key sees.")
    expires_at: datetime | None = Field(description="From when on it is refused; null means never.")


class KeyView(OwnKeyView):
    """An API key, without its secret."""

    created_at: CreatedAt
    revoked_at: datetime | None = Field(description="When it was revoked; null if it was not.")


class AuditView(BaseModel):
    """A request that asked for a change."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(description="Id of the entry; later entries have greater ids.")
    at: datetime = Field(description="When the request arrived.")
    key_id: str = Field(description="Id of the key that sent it.")
    key_name: str = Field(description="Name of that key.")
    project: str = Field(description="Project of that key.")
    action: str = Field(description="What was asked for, such as `cancel_run`: the operation's id in this document.")
    target: dict[str, str] = Field(description="What it was asked of: the parameters of the path, such as `run_id`.")
    outcome: str | None = Field(
        description="`done`, `dry run` if it was only to say what it would do, or the kind of problem that it was refused with; null if it never ended."
    )
    made: str | None = Field(description="Id of what it created; null if nothing.")


class AuditPage(BaseModel):
    """A page of the audit trail."""

    items: list[AuditView] = Field(description="Entries, newest first.")
    next_before: int | None = Field(description="Pass this as `before` to get the next page; null on the last one.")


class HeldView(BaseModel):
    """A stage that a worker runs. All is null but `started_at` and `progress` if the run is of another project."""

    run_id: str | None = Field(description="Id of the run.")
    run_name: str | None = Field(description="Name of the run.")
    stage: str | None = Field(description="Name of the stage.")
    attempt: int | None = Field(description="Number of the attempt, counted from 1.")
    started_at: datetime = Field(description="When the worker claimed the stage.")
    progress: ProgressView | None = Field(description="How far it is; null before the first report.")


class GpuView(BaseModel):
    """A GPU of a worker's machine, as its driver measured it a few seconds before the heartbeat. Null: the GPU does not tell."""

    index: int = Field(description="Its number on the machine, counted from 0.")
    name: str = Field(description="Its name as the driver gives it.")
    memory_used_gib: float | None = Field(description="Memory in use in GiB.")
    memory_total_gib: float | None = Field(description="All of its memory in GiB.")
    power_w: float | None = Field(description="Power that it draws in watts.")
    power_limit_w: float | None = Field(description="Most power that it may draw in watts.")
    temperature_c: float | None = Field(description="Its temperature in degrees Celsius.")
    activity_pct: float | None = Field(description="Share of the last second in which it computed, in per cent.")


class DiskView(BaseModel):
    """The disk under a folder of a worker."""

    what: str = Field(description="`home`: where attempts write and checkpoints are. `cache`: where fetched data are.")
    path: str = Field(description="The folder on the worker's machine.")
    free_gib: float = Field(description="Free space of its disk in GiB.")
    total_gib: float = Field(description="Size of its disk in GiB.")


class WorkerView(BaseModel):
    """A worker process, which takes stages from one queue."""

    id: str = Field(description="The worker's id, which it keeps over restarts.")
    queue: str = Field(description="Queue that it takes stages from: `cpu` or `gpu`.")
    hostname: str = Field(description="Name of its machine.")
    status: str = Field(description="`idle`, `busy`, `draining` (takes no new stages) or `lost` (no heartbeat).")
    slots: int = Field(description="Stages that it can run at the same time.")
    gpus: int = Field(description="GPUs that it gives to a stage; 0 without GPUs.")
    gpu_name: str = Field(description="Name of its GPUs as the driver gives it; empty without GPUs.")
    heartbeat_at: datetime = Field(description="When it last sent a heartbeat.")
    attempts: list[str] = Field(
        description="Attempts that it runs now, each as run_id/stage/attempt; those of other projects without a name."
    )
    runs: list[HeldView] = Field(description="The same, with what they are doing.")
    devices: list[GpuView] = Field(description="The GPUs of its machine, also those that it does not use; empty without GPUs.")
    disks: list[DiskView] = Field(description="The disks of its folders; empty before its first heartbeat.")
