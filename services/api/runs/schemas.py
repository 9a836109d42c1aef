"""What a client sends about runs. What it is answered are the ledger's read models (controlplane.schemas)."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema

from nanochat import recipe as recipes
from nanochat.plan import Plan
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


RunName = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True), AfterValidator(check_text)]


class PlanRequest(BaseModel):
    """A recipe: what to train, on what, for how long."""

    model_config = ConfigDict(extra="forbid")

    recipe: RecipeRef = Field(description="name of a shipped recipe, or a whole recipe inline", examples=["tiny"])
    overrides: dict[DottedPath, Storable] = Field(
        default={}, max_length=200, description="dotted field to its value", examples=[{"base.num_iterations": 20}]
    )


class SubmitRequest(PlanRequest):
    name: RunName | None = Field(default=None, description="for people; the recipe's name when left out")


class PlannedStage(BaseModel):
    name: str
    kind: str
    queue: str
    needs: list[str] = Field(description="what it waits for, as producer.output")


class RunPlan(BaseModel):
    """What a run would do and cost. Nothing has been started or written."""

    recipe: str
    config: recipes.Recipe = Field(description="the whole recipe, defaults filled in")
    stages: list[PlannedStage]
    figures: Plan = Field(description="parameters, steps, tokens, FLOPs, hours and dollars on the workers at hand")
    warnings: list[str]


class ReportView(BaseModel):
    markdown: str
