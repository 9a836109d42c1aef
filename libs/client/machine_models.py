"""The control API's answers about workers and their machines. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from client.models import Progress


class GpuState(BaseModel):
    """A GPU of a worker's machine a few seconds before its heartbeat; None: the GPU does not tell."""

    index: int
    name: str
    memory_used_gib: float | None
    memory_total_gib: float | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: float | None
    activity_pct: float | None


class DiskState(BaseModel):
    """The disk under a folder of a worker: its `home` or its `cache`."""

    what: str
    path: str
    free_gib: float
    total_gib: float


class Figure(BaseModel):
    """A figure of a device in each bucket of samples; None where the device did not tell it."""

    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]


class DeviceSeries(BaseModel):
    """A GPU of a run (`gpu` is its number), or a machine of it (None), in buckets of samples; `t` is Unix time in seconds.

    Activity is in per cent, memory in GiB, power in watts, temperature in degrees Celsius; None: the device does not tell.
    """

    worker: str
    gpu: int | None
    t: list[float]
    activity_pct: Figure | None
    memory_gib: Figure | None
    power_w: Figure | None
    temperature_c: Figure | None


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
