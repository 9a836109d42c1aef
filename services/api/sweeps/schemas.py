"""Bodies of requests about sweeps, and the plan of a sweep. The other answers are read models (`controlplane.sweep_schemas`)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, field_validator

from nanochat.contract.bounds import one_line
from nanochat.planning.early import StopEarly
from nanochat.planning.sweep import MAX_RUNS, Space
from services.api.fields import storable
from services.api.runs.schemas import Dollars, Hours, Label, PlanRequest, Priority, RecipeRequest

SweepName = Annotated[str, StringConstraints(min_length=1, max_length=60, strip_whitespace=True), AfterValidator(one_line)]
Parallel = Annotated[int, Field(strict=True, ge=1, le=MAX_RUNS)]


class SweepRequest(RecipeRequest, Space):
    """A sweep to start: a recipe, and exactly one of `grid`, `random`, `depths` and `ablate`."""

    name: SweepName | None = Field(default=None, description="Name of the sweep; null means the recipe's name and the kind.")
    max_parallel: Parallel | None = Field(default=None, description="How many of its runs may go on at once; null means all.")
    labels: list[Label] = Field(default=[], max_length=50, description="Labels of its runs.")
    priority: Priority = Field(default=0, description="Priority of its runs in the queue; a greater one goes first.")
    max_usd_per_run: Dollars | None = Field(default=None, description="Budget of each run in US dollars.")
    max_hours_per_run: Hours | None = Field(default=None, description="Budget of each run in hours in which a stage is live.")
    usd_per_hour: float | None = Field(
        default=None, strict=True, ge=0, le=1e6, description="Price of one GPU in US dollars per hour; overrides the table."
    )
    stop_early: StopEarly | None = Field(default=None, description="Rule that stops runs which fall behind; null means none.")

    @field_validator("grid", "random")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        storable(value.model_dump() if isinstance(value, BaseModel) else value)
        return value

    @property
    def kind(self) -> str:
        """The one of the four kinds that is given."""
        return next(name for name in Space.model_fields if getattr(self, name) is not None)


class SweepPlanRequest(SweepRequest, PlanRequest):
    """A sweep and the hardware to plan for. Hardware that is left out is that of the best gpu worker."""


class PlannedRunView(BaseModel):
    """One run of a planned sweep. Figures are null where they are not known before the data are there, or on this hardware."""

    no: int = Field(description="Its place in the sweep, counted from 1.")
    label: str = Field(description="What it changes, in short.")
    overrides: dict[str, Any] = Field(description="What it changes, by dotted path; empty for the base of an ablation.")
    params: int = Field(description="Parameters of the model.")
    steps: int | None = Field(description="Optimizer steps of its first training stage.")
    tokens: int | None = Field(description="Tokens of that stage.")
    fits: bool | None = Field(description="False if a stage is predicted not to fit into memory; null if that is unknown.")
    hours: float | None = Field(description="Predicted hours of training.")
    usd: float | None = Field(description="Predicted cost of training in US dollars.")


class SweepPlanView(BaseModel):
    """What a sweep would do and cost. Nothing has been started or written."""

    kind: str = Field(description="Which runs it has: `grid`, `random`, `depths` or `ablate`.")
    items: list[PlannedRunView] = Field(description="Its runs, in the order in which they would start.")
    gpus: int = Field(description="Processes of a training stage, one GPU each.")
    gpu: str | None = Field(description="Name of the GPU in the table of known GPUs; null if it is not there.")
    hours: float | None = Field(description="Hours of all runs, one after another; null if those of one are unknown.")
    gpu_hours: float | None = Field(description="GPU hours of all runs; null if those of one are unknown.")
    usd: float | None = Field(description="Cost of all runs in US dollars; null if that of one is unknown.")
    warnings: list[str] = Field(description="What to know before the sweep starts, in sentences for people.")
