"""The recipes that ship with the platform."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from nanochat.config import recipe as recipes
from services.api.auth import Caller
from services.api.problems import ProblemError, responses

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])


class RecipeView(BaseModel):
    """A shipped recipe."""

    name: str = Field(description="Name of the recipe.")
    description: str = Field(description="What the recipe is for, in a sentence or two.")
    config: recipes.Recipe = Field(description="The whole recipe with its defaults filled in.")


class RecipeList(BaseModel):
    """The shipped recipes."""

    items: list[RecipeView] = Field(description="Recipes in the order of their names.")


@router.get("", responses=responses())
def list_recipes(caller: Caller) -> RecipeList:
    """List the shipped recipes."""
    return RecipeList(items=[_view(name) for name in recipes.names()])


@router.get("/{name}", responses=responses("recipe-not-found", "invalid-request"))
def get_recipe(caller: Caller, name: Annotated[str, Path(max_length=100, description="Name of the recipe.")]) -> RecipeView:
    """Get one shipped recipe."""
    if name not in recipes.names():
        raise ProblemError("recipe-not-found", f"no recipe {name!r}; known: {', '.join(recipes.names())}")
    return _view(name)


def _view(name: str) -> RecipeView:
    recipe = recipes.resolve(name)
    return RecipeView(name=name, description=recipe.description, config=recipe)
