"""What stages and metrics there are and how to show them, so that a client needs no table of its own."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from nanochat.planning.graph import STAGES, Queue
from nanochat.planning.metrics import METRICS, Better, Plot
from services.api.auth import Caller
from services.api.problems import responses

router = APIRouter(prefix="/v1/catalog", tags=["catalog"])


class StageInfoView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str = Field(description="name of the stage in a run")
    kind: str = Field(description="what it does; chat_eval is the kind of three stages")
    title: str = Field(description="its name in a report")
    short: str = Field(description="its name where there is little room")
    queue: Queue = Field(description="the queue of workers that run it")
    trains: str | None = Field(description="section of the recipe that configures its training; null when it trains nothing")


class MetricInfoView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    key: str = Field(description="key of the metric in events and series")
    title: str = Field(description="its name")
    unit: str = Field(description="its unit; empty when it has none")
    label: str = Field(description="title and unit, as an axis is named")
    short: str = Field(description="its name where there is little room")
    better: Better | None = Field(description="the direction of progress; null when neither is")
    stages: list[str] = Field(description="kinds of stages that report it")
    plot: Plot | None = Field(description="the curve that shows it; a stage shows the first metric of a plot that it reports")
    column: bool = Field(description="whether tables of stages show its newest value")


class CatalogView(BaseModel):
    stages: list[StageInfoView] = Field(description="every stage that a run can have, producers before consumers")
    metrics: list[MetricInfoView] = Field(description="every metric that a stage can report, the most telling first")


@router.get("", responses=responses())
def get_catalog(caller: Caller) -> CatalogView:
    """Every stage and every metric, with the names and units under which to show them."""
    return CatalogView(
        stages=[StageInfoView.model_validate(stage) for stage in STAGES],
        metrics=[MetricInfoView.model_validate(metric) for metric in METRICS],
    )
