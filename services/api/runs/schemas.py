"""Bodies of requests about runs. The answers are the ledger's read models (`controlplane.schemas`)."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetJsonSchemaHandler, JsonValue, StringConstraints
from pydantic.json_schema import JsonSchemaValue

from nanochat.config import recipe as recipes
from nanochat.contract.bounds import one_line
from services.api.fields import Storable, check_text, storable

NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


def _name_or_table(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return storable(value)
    if not isinstance(value, str):
        raise ValueError("must be the name of a shipped recipe or a whole recipe as a table")
    if not re.fullmatch(NAME, value):  # a path is refused as well: no file of this machine is read
        raise ValueError(
            f"is not the name of a recipe; known: {', '.join(recipes.names())}. To use a file, send its content as a table"
        )
    return value


class _RecipeSchema:
    """Shows the whole recipe, with the bounds of every field, in the OpenAPI document. Validation is that of `resolve`."""

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string", "pattern": NAME}, handler(recipes.Recipe.__pydantic_core_schema__)]}


RecipeRef = Annotated[JsonValue, AfterValidator(_name_or_table), _RecipeSchema()]
DottedPath = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(check_text)]
GpuName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(one_line)]
PlanHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
RunName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(one_line)]


class RecipeRequest(BaseModel):
    """A recipe by name or inline, with overrides."""

    model_config = ConfigDict(extra="forbid")

    recipe: RecipeRef = Field(description="Name of a shipped recipe, or a whole recipe as an object.", examples=["tiny"])
    overrides: dict[DottedPath, Storable] = Field(
        default={},
        max_length=200,
        description="Values of recipe fields, by dotted path of the field.",
        examples=[{"base.num_iterations": 20}],
    )


class PlanRequest(RecipeRequest):
    """A recipe and the hardware to plan for. Hardware that is left out is that of the best gpu worker."""

    gpus: int | None = Field(
        default=None, strict=True, ge=1, le=100_000, description="Processes of a training stage, one GPU each."
    )
    gpu: GpuName | None = Field(
        default=None, description="Name of the GPU; the table in docs/recipes.md lists those that are known.", examples=["H100"]
    )
    gpu_memory_gib: float | None = Field(
        default=None, strict=True, gt=0, le=10_000, description="Memory of one GPU in GiB; overrides the table."
    )
    peak_tflops: float | None = Field(
        default=None, strict=True, ge=0.001, le=1e6, description="Peak of one GPU in dense bf16 TFLOPS; overrides the table."
    )
    usd_per_hour: float | None = Field(
        default=None, strict=True, ge=0, le=1e6, description="Price of one GPU in US dollars per hour; overrides the table."
    )


Label = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/=-]{0,62}$")]
Priority = Annotated[int, Field(strict=True, ge=-100, le=100)]
Dollars = Annotated[float, Field(strict=True, gt=0, le=1e9, allow_inf_nan=False)]
Hours = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]


class SubmitRequest(RecipeRequest):
    """A run to start."""

    name: RunName | None = Field(default=None, description="Name of the run, for people; null means the recipe's name.")
    plan: PlanHash | None = Field(
        default=None, description="Hash of the plan that the run is to follow. If it would do anything else, the answer is 409."
    )
    priority: Priority = Field(default=0, description="Priority of its stages in the queue; a greater one goes first.")
    max_usd: Dollars | None = Field(
        default=None,
        description="Budget in US dollars. At 80 % an event warns; when it is spent, the run saves its work and pauses.",
    )
    max_hours: Hours | None = Field(
        default=None, description="Budget of hours in which a stage is live, with the same effect as `max_usd`."
    )
    usd_per_hour: float | None = Field(
        default=None, strict=True, ge=0, le=1e6, description="Price of one GPU in US dollars per hour; overrides the table."
    )


class NewTerms(BaseModel):
    """The place in the queue and the budget of a run that builds on another one. What is left out is as in the old run."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority | None = Field(default=None, description="Priority of its stages in the queue; null: the old run's.")
    max_usd: Dollars | None = Field(
        default=None, description="Budget of the new run alone, in US dollars; null: as much as the old run's."
    )
    max_hours: Hours | None = Field(
        default=None,
        description="Budget of the new run alone, of hours in which a stage is live; null: as much as the old run's.",
    )
    usd_per_hour: float | None = Field(
        default=None, strict=True, ge=0, le=1e6, description="Price of one GPU in US dollars per hour; null: the old run's."
    )
