"""Read models of sweeps, in the shape in which the HTTP API answers them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from controlplane.lifecycle import RunStatus
from controlplane.schemas import CreatedAt, Detail, FinishedAt, PointView, RecipeName, RunId, RunName, RunState, StageName


class SweepStatus(StrEnum):
    """What the runs of a sweep do together."""

    RUNNING = "RUNNING"  # some run is not finished and not paused
    PAUSED = "PAUSED"  # every run that is not finished is paused
    FINISHED = "FINISHED"  # every run is finished, whether it succeeded or not


class _Sweep(BaseModel):
    id: str = Field(description="The sweep's id: `s_` and 16 hex digits.")
    name: str = Field(description="The sweep's name, for people; not unique.")
    kind: str = Field(description="Which runs it has: `grid`, `random`, `depths` or `ablate`.")
    recipe: RecipeName
    status: SweepStatus = Field(
        description="`RUNNING`; `PAUSED` if every run that is not finished is; `FINISHED` if every run is finished."
    )
    runs: dict[RunStatus, int] = Field(description="Number of its runs by status.")
    stopped_early: int = Field(description="Number of its runs that its rule stopped early.")
    pending: int = Field(
        description="Number of its runs that a request to pause, resume or cancel has yet to reach, which takes seconds."
    )
    max_parallel: int | None = Field(description="How many runs may go on at once; null means all.")
    created_at: CreatedAt
    finished_at: FinishedAt
    archived_at: datetime | None = Field(description="When it was archived with its runs; null if it is not.")


class SweepSummary(_Sweep):
    """One sweep as a list shows it."""


class SweepPage(BaseModel):
    """A page of sweeps."""

    items: list[SweepSummary] = Field(description="Sweeps, newest first.")
    next_cursor: str | None = Field(description="Pass this as `cursor` to get the next page; null on the last one.")


class SweepRunView(BaseModel):
    """One run of a sweep."""

    no: int = Field(description="Its place in the sweep, counted from 1.")
    run_id: RunId
    name: RunName
    overrides: dict[str, Any] = Field(description="What it changes, by dotted path; empty for the base of an ablation.")
    status: RunState
    detail: Detail
    held: bool = Field(description="Whether it waits because `max_parallel` other runs go on.")
    stopped_early: bool = Field(description="Whether the sweep's rule stopped it.")
    rungs: int = Field(description="Comparisons of the sweep's rule in which it took part.")
    best: float | None = Field(description="Best finite value of the metric; null if there is none.")
    last: float | None = Field(description="Newest value of the metric; null if there is none or it is not finite.")
    step: int | None = Field(description="Step of the newest value.")
    tokens: int | None = Field(description="Tokens that the stage had trained on by then; null if unknown.")
    hours: float = Field(description="Hours in which one of its stages was live.")
    gpu_hours: float = Field(description="Hours of GPUs, each counted by itself.")
    usd: float | None = Field(description="Dollars of them; null if the price of a GPU is unknown.")


class SweepView(_Sweep):
    """One sweep with the table of its runs."""

    spec: dict[str, Any] = Field(description="The request that made it.")
    metric: str = Field(description="Metric of `best` and `last`.")
    stage: StageName
    better: str = Field(description="Which values of the metric are better: `lower` or `higher`.")
    items: list[SweepRunView] = Field(description="Its runs, in the order in which the sweep makes them.")


class SweepPointView(PointView):
    """A bucket of neighbouring points, and what its newest one had cost."""

    tokens: int | None = Field(description="Tokens that the stage had trained on; null if unknown.")
    gpu_hours: float = Field(description="GPU hours that the attempts of the stage had taken.")


class SweepSeriesView(BaseModel):
    """The metric of one run of a sweep."""

    no: int = Field(description="The run's place in the sweep, counted from 1.")
    run_id: RunId
    name: RunName
    overrides: dict[str, Any] = Field(description="What the run changes.")
    points: list[SweepPointView] = Field(description="Buckets in the order of their steps.")


class SweepCurvesView(BaseModel):
    """Time to quality: one metric of all runs of a sweep against tokens and GPU hours."""

    metric: str = Field(description="Key of the metric.")
    label: str = Field(description="Its name for people, with the unit.")
    stage: StageName
    better: str = Field(description="Which values are better: `lower` or `higher`.")
    series: list[SweepSeriesView] = Field(description="One series for each run that has reported the metric.")
