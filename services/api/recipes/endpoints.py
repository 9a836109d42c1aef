"""The recipes that ship with the platform."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from nanochat.config import form
from nanochat.config import recipe as recipes
from services.api.auth import Caller
from services.api.problems import ProblemError, responses

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])


class RecipeView(BaseModel):
    """A shipped recipe."""

    name: str = Field(description="Name of the recipe.")
    description: str = Field(description="What the recipe is for, in a sentence or two.")
    config: recipes.Recipe = Field(description="The whole recipe with its defaults filled in.")
    changes: dict[str, Any] = Field(
        description="The fields, by dotted path, whose value is not the default, with their values."
    )


class RecipeList(BaseModel):
    """The shipped recipes."""

    items: list[RecipeView] = Field(description="Recipes in the order of their names.")


class RecipeSchemaView(BaseModel):
    """Every field of a recipe."""

    groups: list[form.RecipeGroup] = Field(description="The sections of a recipe with their fields, in the order of a recipe.")


@router.get("", responses=responses())
def list_recipes(caller: Caller) -> RecipeList:
    """List the shipped recipes."""
    return RecipeList(items=[_view(name) for name in recipes.names()])


@router.get("/schema", responses=responses())
def get_recipe_schema(caller: Caller) -> RecipeSchemaView:
    """Get every field of a recipe with its unit, its bounds, its default and what it does, as a form needs it."""
    return RecipeSchemaView(groups=list(form.groups()))


@router.get("/{name}", responses=responses("recipe-not-found", "invalid-request"))
def get_recipe(caller: Caller, name: Annotated[str, Path(max_length=100, description="Name of the recipe.")]) -> RecipeView:
    """Get one shipped recipe."""
    if name not in recipes.names():
        raise ProblemError("recipe-not-found", f"no recipe {name!r}; known: {', '.join(recipes.names())}")
    return _view(name)


def _view(name: str) -> RecipeView:
    recipe = recipes.resolve(name)
    changes = form.differences(recipe.model_dump(mode="json", by_alias=True))
    changes = {path: value for path, value in changes.items() if path not in ("name", "description")}
    return RecipeView(name=name, description=recipe.description, config=recipe, changes=changes)
