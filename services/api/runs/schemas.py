"""What a client sends about runs. What it is answered are the ledger's read models (controlplane.schemas)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema

from nanochat.config import recipe as recipes
from services.api.fields import Storable, check_text, storable

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def _name_or_table(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return storable(value)
    if not isinstance(value, str):
        raise ValueError("must be the name of a shipped recipe or a recipe's table")
    if not re.match(NAME, value):  # nor is a path looked up on this machine
        raise ValueError(f"is not a recipe's name; known: {', '.join(recipes.names())}. Send a file's content as a table")
    return value


RecipeRef = Annotated[
    JsonValue,
    AfterValidator(_name_or_table),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": NAME}, {"type": "object", "additionalProperties": True}]}),
]
DottedPath = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(check_text)]
GpuName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(check_text)]
RunName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(check_text)]


class RecipeRequest(BaseModel):
    """A recipe: what to train, on what, for how long."""

    model_config = ConfigDict(extra="forbid")

    recipe: RecipeRef = Field(description="name of a shipped recipe, or a whole recipe inline", examples=["tiny"])
    overrides: dict[DottedPath, Storable] = Field(
        default={}, max_length=200, description="dotted field to its value", examples=[{"base.num_iterations": 20}]
    )


class PlanRequest(RecipeRequest):
    """A recipe, and the hardware to plan for where it is not that of the workers at hand."""

    gpus: int | None = Field(
        default=None, strict=True, ge=1, le=100_000, description="processes of a training stage, one GPU each"
    )
    gpu: GpuName | None = Field(
        default=None, description="a GPU's name; the table in docs/recipes.md has those known", examples=["H100"]
    )
    gpu_memory_gib: float | None = Field(
        default=None, strict=True, gt=0, le=10_000, description="of one GPU; goes before the table"
    )
    peak_tflops: float | None = Field(
        default=None, strict=True, ge=0.001, le=1e6, description="dense bf16, of one GPU; goes before the table"
    )
    usd_per_hour: float | None = Field(default=None, strict=True, ge=0, le=1e6, description="of one GPU; goes before the table")


class SubmitRequest(RecipeRequest):
    name: RunName | None = Field(default=None, description="for people; the recipe's name when left out")


class ReportView(BaseModel):
    markdown: str
