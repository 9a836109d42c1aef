"""The control API's answers about recipes. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class RecipeInfo(BaseModel):
    name: str
    description: str = ""
    config: dict[str, Any] = Field(default_factory=dict, description="the whole recipe, with all defaults")


class RecipeField(BaseModel):
    """A field of a recipe, as a form shows it. `path` is the name under which an override sets it."""

    path: str
    title: str
    type: str
    description: str
    unit: str = ""
    default: Any = None
    nullable: bool = False
    choices: list[Any] = []
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    only_if: dict[str, str] = {}


class RecipeGroup(BaseModel):
    """A section of a recipe. `enabled_by` is the field that switches its stage on, if there is one."""

    name: str
    title: str
    description: str
    enabled_by: str | None = None
    fields: list[RecipeField]


class RecipeSchema(BaseModel):
    groups: list[RecipeGroup]
