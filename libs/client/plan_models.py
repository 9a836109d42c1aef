"""The control API's answers about plans of runs. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


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
