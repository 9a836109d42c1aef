"""The control API's answers about sweeps. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from client.models import MetricPoint


class SweepSummary(BaseModel):
    id: str
    name: str
    kind: str
    recipe: str
    status: str
    runs: dict[str, int]
    stopped_early: int
    pending: int = 0
    max_parallel: int | None = None
    created_at: datetime
    finished_at: datetime | None = None
    archived_at: datetime | None = None


class SweepPage(BaseModel):
    items: list[SweepSummary]
    next_cursor: str | None = None


class SweepRun(BaseModel):
    """A row of a sweep's table. `best` and `last` are values of the sweep's metric."""

    no: int
    run_id: str
    name: str
    overrides: dict[str, Any]
    status: str
    detail: str
    held: bool
    stopped_early: bool
    best: float | None = None
    last: float | None = None
    step: int | None = None
    tokens: int | None = None
    hours: float
    gpu_hours: float
    usd: float | None = None


class Sweep(SweepSummary):
    metric: str
    stage: str
    better: str
    items: list[SweepRun]


class SweepPoint(MetricPoint):
    """A bucket of a curve, and what its newest point had cost."""

    tokens: int | None = None
    gpu_hours: float


class SweepSeries(BaseModel):
    no: int
    run_id: str
    name: str
    overrides: dict[str, Any]
    points: list[SweepPoint]


class SweepCurves(BaseModel):
    """A metric of all runs of a sweep."""

    metric: str
    label: str
    stage: str
    better: str
    series: list[SweepSeries]


class PlannedRun(BaseModel):
    no: int
    label: str
    overrides: dict[str, Any]
    params: int
    steps: int | None = None
    tokens: int | None = None
    fits: bool | None = None
    hours: float | None = None
    usd: float | None = None


class SweepPlan(BaseModel):
    """What a sweep would do and cost; None: not known."""

    kind: str
    items: list[PlannedRun]
    gpus: int
    gpu: str | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    usd: float | None = None
    warnings: list[str]
