"""Everything that can be wrong with a recipe, found in one go: its fields, its batches on the hardware, the data that it names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, TypeVar

from nanochat.config.recipe import Recipe, RecipeError, resolve
from nanochat.planning import preflight

T = TypeVar("T")


def checked(recipe: str | dict[str, Any], overrides: dict[str, Any] | None, make: Callable[[Recipe], T]) -> tuple[Recipe, T]:
    """The resolved recipe and what `make`, such as the planner, makes of it.

    Raises RecipeError with the problems of all three kinds, and the errors of `make`.
    """
    problems: list[tuple[str, str]] = []
    try:
        resolved: Recipe | None = resolve(recipe, overrides)
    except RecipeError as err:
        problems, resolved = list(err.problems), err.rest
    if resolved is None:
        raise RecipeError(problems)
    made: list[T] = []
    wrong = {field.partition(".")[0] for field, _ in problems}
    try:
        made.append(make(resolved))
    except RecipeError as err:
        # Of a section with wrong fields, defaults were planned.
        problems += [(field, text) for field, text in err.problems if not {field.partition(".")[0], "model"} & wrong]
    known = [_list_of(field) for field, _ in problems]
    problems += [(field, text) for field, text in _data(resolved) if not any(_related(_list_of(field), k) for k in known)]
    if not made or problems:
        raise RecipeError(problems)
    return resolved, made[0]


def _data(recipe: Recipe) -> Sequence[tuple[str, str]]:
    try:
        return preflight.check(recipe)
    except OSError as err:  # no permission to read a path, or the path is too long
        return [("data", f"{err.filename} cannot be read: {err.strerror}; give another path")]


def _list_of(field: str) -> str:
    """The field, of an entry of a list the whole list: `mid.train` for `mid.train.0.task`."""
    return ".".join(takewhile(lambda part: not part.isdecimal(), field.split(".")))


def _related(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
