"""The ledger's tables. Times are the database's clock; `t` columns are the clock of the machine that made the record."""

from __future__ import annotations

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from controlplane.lifecycle import LIVE_ATTEMPT, AttemptStatus, Desired, Drain, Reason, RunStatus, StageStatus, Wish
from controlplane.roles import DEFAULT_PROJECT, Role

Json = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own declaration
        datetime: DateTime(timezone=True),
        str: Text,
        int: BigInteger,
        Json: JSONB,
        list[str]: JSONB,
        list[int]: ARRAY(BigInteger),
        list[float]: ARRAY(Double),
        list[float | None]: ARRAY(Double),
        dict[str, str]: JSONB,
    }


class Word(TypeDecorator[StrEnum]):
    """Stores an enum as text, so that a new member needs no migration."""

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[StrEnum]):
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: StrEnum | None, dialect: Any) -> str | None:
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Any) -> StrEnum | None:
        return None if value is None else self.enum(value)


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(8)}"


class ApiKey(Base):
    """An API key. Only the digest of its secret is stored."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("k"))
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    role: Mapped[Role] = mapped_column(Word(Role), server_default=Role.ADMIN)
    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class AuditEntry(Base):
    """A request of a key that changes something. Rows are never changed after the request has ended, and never deleted."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    key_id: Mapped[str]
    key_name: Mapped[str]
    project: Mapped[str]
    action: Mapped[str]
    target: Mapped[dict[str, str]]  # the parameters of the path, such as run_id
    outcome: Mapped[str | None]  # null while the request is carried out, or if the process died meanwhile
    made: Mapped[str | None]  # id of what the request created


class Sweep(Base):
    """A parent of runs that differ in a few overrides. Its state is that of its runs."""

    __tablename__ = "sweep"
    __table_args__ = (Index("ix_sweep_project_created_at_id", "project", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("s"))
    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    name: Mapped[str]
    kind: Mapped[str]
    recipe: Mapped[str]
    spec: Mapped[Json]  # the request that made it
    owner: Mapped[str] = mapped_column(server_default="")  # id of the API key that submitted it
    max_parallel: Mapped[int | None]  # runs that may be unfinished and not paused at once
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    archived_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


class Run(Base):
    """A run: the whole recipe as it was resolved at submission, and what the user wants done with it."""

    __tablename__ = "run"
    __table_args__ = (
        Index("ix_run_created_at_id", "created_at", "id"),
        Index("ix_run_project_name", "project", "name"),
        Index("ix_run_status", "status"),
        Index("ix_run_sweep_id", "sweep_id", postgresql_where=text("sweep_id IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("r"))
    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    name: Mapped[str]
    recipe: Mapped[str]
    config: Mapped[Json]
    desired: Mapped[Desired] = mapped_column(Word(Desired), default=Desired.RUN)
    status: Mapped[RunStatus] = mapped_column(Word(RunStatus), default=RunStatus.QUEUED)
    detail: Mapped[str] = mapped_column(default="")
    labels: Mapped[list[str]] = mapped_column(default=list, server_default="[]")
    notes: Mapped[str] = mapped_column(default="", server_default="")
    forked_from: Mapped[str | None]  # id of the run whose work it takes over
    owner: Mapped[str] = mapped_column(server_default="")  # id of the API key that submitted it
    priority: Mapped[int] = mapped_column(server_default="0")  # of its stages in the queue; a greater one goes first
    planned: Mapped[Json | None]  # the figures of its plan at submission
    max_usd: Mapped[float | None]
    max_hours: Mapped[float | None]
    usd_per_hour: Mapped[float | None]  # price of a GPU; overrides the table of GPUs
    budget_warned_at: Mapped[datetime | None]
    events_dropped: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # how many are no longer kept
    events_dropped_id: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # the greatest id of those
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweep.id"))
    sweep_no: Mapped[int | None]  # its place in the sweep, counted from 1
    overrides: Mapped[Json | None]  # in what it differs from the other runs of the sweep
    wish: Mapped[Wish | None] = mapped_column(Word(Wish))  # asked of the sweep, not yet carried out
    held: Mapped[bool] = mapped_column(default=False, server_default=text("false"))  # until it is its turn in the sweep
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    archived_at: Mapped[datetime | None]  # from then on lists leave it out
    deleted_at: Mapped[datetime | None]  # from then on nobody sees it

    stages: Mapped[list[Stage]] = relationship(back_populates="run", order_by="Stage.position", lazy="raise")


class Rung(Base):
    """What a run of a sweep was compared by at a rung of the sweep's rule of early stopping, and whether it went on."""

    __tablename__ = "rung"

    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), primary_key=True)
    no: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int]
    value: Mapped[float]
    kept: Mapped[bool]
    decided_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class StoredPlan(Base):
    """A plan by the hash of its content. It is kept for a while, to say in what a later plan differs."""

    __tablename__ = "plan"

    hash: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[Json]
    used_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


class Measurement(Base):
    """What a stage took that ran undisturbed to its end (controlplane/measurements.py). It outlives the run."""

    __tablename__ = "measurement"
    __table_args__ = (Index("ix_measurement_alike_measured_at", "alike", "measured_at"),)

    attempt_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    alike: Mapped[str]  # digest of all that decides how fast the stage is, but depth and GPUs
    depth: Mapped[int | None]  # of the model, as `work`; null for a stage without one
    work: Mapped[float | None]  # FLOPs per token
    gpu: Mapped[str]  # as the table of GPUs names it; empty on a CPU
    gpus: Mapped[int]
    flops_per_s: Mapped[float | None]  # of all processes together; null for a stage that is measured by its duration
    seconds: Mapped[float]  # from claim to end
    measured_at: Mapped[datetime]


class IdempotencyKey(Base):
    """Maps the idempotency key of a submission to the run or the sweep that it made."""

    __tablename__ = "idempotency_key"

    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_sha256: Mapped[str]
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    sweep_id: Mapped[str | None] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Stage(Base):
    """A node of a run's graph. `attempt_no` is the fence: only the attempt with that number may write."""

    __tablename__ = "stage"
    __table_args__ = (
        UniqueConstraint("run_id", "name"),
        Index("ix_stage_unfinished", "status", postgresql_where=text("status NOT IN ('SUCCEEDED', 'FAILED', 'CANCELLED')")),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    name: Mapped[str]
    kind: Mapped[str]
    queue: Mapped[str]
    position: Mapped[int]
    config: Mapped[Json]
    inputs: Mapped[dict[str, str]]  # the stage's name for an input -> "producer.output"
    outputs: Mapped[list[str]]
    start_checkpoint: Mapped[str | None]  # id of another run's checkpoint that the first attempt resumes from

    status: Mapped[StageStatus] = mapped_column(Word(StageStatus), default=StageStatus.PENDING)
    reason: Mapped[Reason | None] = mapped_column(Word(Reason))
    message: Mapped[str] = mapped_column(default="")
    attempt_no: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)  # counted failures since the last checkpoint progress
    best_step: Mapped[int | None]  # step of the furthest checkpoint that any attempt saved
    retry_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    signs_of_life_at: Mapped[datetime | None]  # time of the last event or log line
    progress: Mapped[Json | None]
    latest: Mapped[Json] = mapped_column(default=dict)  # metric key -> its newest value

    run: Mapped[Run] = relationship(back_populates="stages", lazy="raise")


class Worker(Base):
    """A worker process, which serves one queue on one machine. It can hold `slots` attempts at once."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    hostname: Mapped[str]
    slots: Mapped[int] = mapped_column(default=1)
    gpus: Mapped[int] = mapped_column(default=0)
    gpu_name: Mapped[str] = mapped_column(default="")
    draining: Mapped[bool] = mapped_column(default=False)
    drain: Mapped[Drain | None] = mapped_column(Word(Drain))  # what a user asked for
    state: Mapped[Json | None]  # what it last said about its machine: GPUs and disks
    registered_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())


_ATTEMPT_IS_LIVE = text("status IN ({})".format(", ".join(sorted(f"'{s}'" for s in LIVE_ATTEMPT))))


class Attempt(Base):
    """One try of a stage on one worker, and how much of its output has been stored. Rows are never reused."""

    __tablename__ = "attempt"
    __table_args__ = (
        UniqueConstraint("stage_id", "no"),
        Index("one_live_attempt_per_stage", "stage_id", unique=True, postgresql_where=_ATTEMPT_IS_LIVE),
        Index("one_live_attempt_per_slot", "worker_id", "slot", unique=True, postgresql_where=_ATTEMPT_IS_LIVE),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    no: Mapped[int]
    status: Mapped[AttemptStatus] = mapped_column(Word(AttemptStatus), default=AttemptStatus.STARTING)
    reason: Mapped[Reason | None] = mapped_column(Word(Reason))
    message: Mapped[str] = mapped_column(default="")
    stop_reason: Mapped[Reason | None] = mapped_column(Word(Reason))  # why it was told to stop
    worker_id: Mapped[str] = mapped_column(ForeignKey("worker.id"))
    slot: Mapped[int] = mapped_column(default=0)
    gpus: Mapped[int] = mapped_column(server_default="0")  # that the worker gave to it
    gpu_name: Mapped[str] = mapped_column(server_default="")
    process: Mapped[Json] = mapped_column(default=dict)  # its supervisor, by which a restarted worker finds its orphans
    lease_expires_at: Mapped[datetime]
    claimed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    exit_code: Mapped[int | None]
    resumed_from_step: Mapped[int | None]
    resumed_from_attempt: Mapped[
        int | None
    ]  # number of the attempt that saved that checkpoint; null: another stage's, or unknown
    event_seq: Mapped[int] = mapped_column(default=-1)  # number of the last event stored
    bad_line: Mapped[int] = mapped_column(
        default=-1, server_default=text("-1")
    )  # last line of its events file that was set aside
    quarantined: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # how many were
    log_no: Mapped[int] = mapped_column(default=-1)  # number of the last log line stored
    log_kept_from: Mapped[int] = mapped_column(
        default=0, server_default=text("0")
    )  # number of the first line that is still kept
    log_dropped_id: Mapped[int] = mapped_column(default=0, server_default=text("0"))  # greatest id of a line that is not


class Event(Base):
    """An event that a stage reported (`seq` is set) or that the ledger wrote. Ids follow commit order within a run."""

    __tablename__ = "event"
    __table_args__ = (UniqueConstraint("attempt_id", "seq"), Index("ix_event_run_id_id", "run_id", "id"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    stage_id: Mapped[int | None] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"))
    attempt_id: Mapped[int | None] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"))
    seq: Mapped[int | None]
    t: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    kind: Mapped[str]
    data: Mapped[Json]


class LogLine(Base):
    """One line that a stage's processes printed."""

    __tablename__ = "log_line"
    __table_args__ = (UniqueConstraint("attempt_id", "no"), Index("ix_log_line_attempt_id_id", "attempt_id", "id"))

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"))
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"))
    no: Mapped[int]
    t: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())
    line: Mapped[str]


class MetricPoint(Base):
    """A value of a metric that is not in a chunk yet. NaN is stored as well, because a chart must show it."""

    __tablename__ = "metric_point"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    attempt_no: Mapped[int] = mapped_column(primary_key=True)
    t: Mapped[datetime]
    value: Mapped[float]


class MetricChunk(Base):
    """A stretch of an attempt's metric in arrays: its points (`size` 1), or buckets of `size` neighbouring points.

    A chart reads one row for hundreds of points. Such a row also costs much less to store than a row for each of them.
    """

    __tablename__ = "metric_chunk"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    size: Mapped[int] = mapped_column(primary_key=True)  # points of a bucket
    key: Mapped[str] = mapped_column(primary_key=True)
    first_step: Mapped[int] = mapped_column(primary_key=True)
    attempt_no: Mapped[int] = mapped_column(primary_key=True)
    last_step: Mapped[int]
    points: Mapped[int]  # from the first step to the last
    steps: Mapped[list[int]]  # of the newest point of each bucket, as `times` and `lasts`
    times: Mapped[list[float]]  # seconds since 1970
    lasts: Mapped[list[float | None]]  # of a bucket null if it is not finite; of a point the value as it is
    mins: Mapped[list[float | None] | None]  # of the finite values, as `maxs`; null for points, as `nonfinites`
    maxs: Mapped[list[float | None] | None]
    nonfinites: Mapped[list[int] | None]  # how many values are not finite


class MetricBucket(Base):
    """Releases before chunks kept buckets of 32 steps. Not read any more; dropped one release later."""

    __tablename__ = "metric_bucket"

    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    bucket: Mapped[int] = mapped_column(primary_key=True)
    attempt_no: Mapped[int] = mapped_column(primary_key=True)
    min: Mapped[float | None]
    max: Mapped[float | None]
    nonfinite: Mapped[int]
    step: Mapped[int]
    t: Mapped[datetime]
    value: Mapped[float]


class HardwareSample(Base):
    """How a GPU of an attempt was at a moment, or the machine itself. A figure that the device does not tell is null."""

    __tablename__ = "hardware_sample"

    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"), primary_key=True)
    worker_id: Mapped[str] = mapped_column(primary_key=True)  # one of several that run the attempt together
    gpu: Mapped[int] = mapped_column(primary_key=True)  # its number on the machine; -1: the machine's processors and memory
    t: Mapped[datetime] = mapped_column(primary_key=True)
    activity_pct: Mapped[float | None]
    memory_gib: Mapped[float | None]
    power_w: Mapped[float | None]
    temperature_c: Mapped[float | None]


class Checkpoint(Base):
    """A complete checkpoint. `sha256` is the digest of its manifest, which is written last."""

    __tablename__ = "checkpoint"
    __table_args__ = (
        UniqueConstraint("attempt_id", "path"),
        Index("ix_checkpoint_promoted", "promoted_at", postgresql_where=text("promoted_at IS NOT NULL")),
        Index("ix_checkpoint_delete_after", "delete_after", postgresql_where=text("delete_after IS NOT NULL")),
    )

    id: Mapped[str] = mapped_column(primary_key=True, default=lambda: new_id("c"))
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), index=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"))
    step: Mapped[int]
    path: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    final: Mapped[bool] = mapped_column(default=False)
    val_bpb: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    promoted_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]  # a stage keeps only its newest few checkpoints and the best one
    pinned_at: Mapped[datetime | None]
    delete_after: Mapped[datetime | None]  # its files may be deleted from then on; null again when they are gone


class Artifact(Base):
    """A published output of an attempt, which other stages may read. Its content is fixed."""

    __tablename__ = "artifact"
    __table_args__ = (UniqueConstraint("attempt_id", "name"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id", ondelete="CASCADE"), index=True)
    stage_id: Mapped[int] = mapped_column(ForeignKey("stage.id", ondelete="CASCADE"), index=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"))
    name: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Loop(Base):
    """When a control loop last ticked, and since when it has ticked without a gap."""

    __tablename__ = "loop"

    name: Mapped[str] = mapped_column(primary_key=True)
    ticked_at: Mapped[datetime]
    steady_since: Mapped[datetime]
