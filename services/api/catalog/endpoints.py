"""The catalog of stages, metrics and kinds of events, with names and units to show, so that a client needs no table of its own."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from controlplane.webhook_kinds import EventKind
from nanochat.contract import events
from nanochat.planning.graph import STAGES, Queue
from nanochat.planning.metrics import METRICS, Better, Plot
from services.api.auth import Caller
from services.api.problems import responses

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


class StageInfoView(BaseModel):
    """A stage that a run can have."""

    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="Name of the stage in a run's graph.")
    kind: str = Field(description="What the stage runs. Several stages may have the same kind, such as `chat_eval`.")
    title: str = Field(description="Its name in a report.")
    short: str = Field(description="Its name where there is little room.")
    queue: Queue = Field(description="Kind of worker that it needs: `cpu` or `gpu`.")
    trains: str | None = Field(description="Section of the recipe that configures its training; null if it trains nothing.")


class MetricInfoView(BaseModel):
    """A metric that a stage can report."""

    model_config = ConfigDict(from_attributes=True)

    key: str = Field(description="Key of the metric in events and series.")
    title: str = Field(description="Its name.")
    unit: str = Field(description="Its unit; empty if it has none.")
    label: str = Field(description="Title and unit, for the label of an axis.")
    short: str = Field(description="Its name where there is little room.")
    better: Better | None = Field(description="Which direction is better; null if neither is.")
    stages: list[str] = Field(description="Kinds of the stages that report it.")
    plot: Plot | None = Field(
        description="Chart that shows it; null if none does. Of several metrics with the same chart, a stage's chart shows the first that it reports."
    )
    column: bool = Field(description="Whether tables of stages show its newest value.")


class CatalogView(BaseModel):
    """All stages, metrics and kinds of events."""

    stages: list[StageInfoView] = Field(description="All stages that a run can have; producers precede consumers.")
    event_kinds: list[str] = Field(description="All kinds of event that a run can have.")
    metrics: list[MetricInfoView] = Field(description="All metrics that a stage can report, the most informative first.")


@router.get("", responses=responses())
def get_catalog(caller: Caller) -> CatalogView:
    """List every stage, every metric and every kind of event, with the names and units to show."""
    return CatalogView(
        stages=[StageInfoView.model_validate(stage) for stage in STAGES],
        event_kinds=sorted({*EventKind, *events.KINDS}),
        metrics=[MetricInfoView.model_validate(metric) for metric in METRICS],
    )
