"""The machine of a worker as typed Python. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from pydantic import BaseModel


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
