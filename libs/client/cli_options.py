"""Arguments and options that several commands take, and the recipe and overrides that they ask for."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from client import complete, overrides

RecipeArg = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="name of a shipped recipe (see `nanochat recipes`), or a .toml file",
        autocompletion=complete.recipes,
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="override one field, such as base.num_iterations=20")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="train on the text in this folder: .parquet or .jsonl with `text`, or .txt"),
]
FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="MODEL", help="start from this model: a folder, or the id of a checkpoint or a run"),
]
FirstOption = Annotated[
    str | None,
    typer.Option("--first", metavar="STAGE", help="the stage that starts from it: base_train, mid_train, sft (default) or rl"),
]
PriorityOption = Annotated[int | None, typer.Option(min=-100, max=100, help="a greater priority goes first")]
MaxUsd = Annotated[float | None, typer.Option(metavar="USD", help="pause when this is spent")]
MaxHours = Annotated[float | None, typer.Option(metavar="HOURS", help="pause after this many hours of work")]
UsdPerHour = Annotated[float | None, typer.Option(metavar="USD", help="price of one GPU per hour")]
StageOption = Annotated[str | None, typer.Option(help="only this stage", autocompletion=complete.stages)]
GpusOption = Annotated[int | None, typer.Option(min=1, help="number of GPUs to plan for")]
GpuOption = Annotated[str | None, typer.Option(help="name of the GPU, such as H100")]


def recipe_of(text: str) -> str | dict[str, Any]:
    """The content of a .toml file, because the server may be on another machine; a name is returned unchanged.

    An empty file would be a run of all defaults, which takes days on one GPU: it is refused. Raises typer.BadParameter.
    """
    if not text.endswith(".toml"):
        if "." in text or "/" in text:
            raise typer.BadParameter(f"{text} is neither the name of a recipe nor a .toml file", param_hint="RECIPE")
        return text
    try:
        table = tomllib.loads(Path(text).read_text(encoding="utf-8-sig"))
    except OSError as err:
        why = err.strerror or str(err)
    except UnicodeDecodeError:
        why = "it is not UTF-8 text; save it as UTF-8"
    except RecursionError:
        why = "it is nested too deeply"
    except ValueError as err:  # a number with thousands of digits is one that is not a TOMLDecodeError
        why = f"it is not valid TOML: {err}"
    else:
        if table:
            return table
        why = 'it has no field; for a run with all defaults write a name: name = "…"'
    raise typer.BadParameter(f"{text}: {why}", param_hint="RECIPE")


def overrides_of(
    set_: list[str] | None, data: Path | None, from_: str | None = None, first: str | None = None
) -> dict[str, Any]:
    """The overrides that --set, --data, --from and --first ask for. Raises typer.BadParameter."""
    start = {"from.model": _absolute(from_) if from_ else None, "from.first": first}
    try:
        return {**overrides.parse(set_ or [], data), **{field: value for field, value in start.items() if value is not None}}
    except overrides.OverrideError as err:
        raise typer.BadParameter(str(err), param_hint="--set") from err


def something_to_change(**given: object) -> None:
    """Raises typer.BadParameter if a command that changes something is not told what. `given` are its options by name."""
    if all(value is None for value in given.values()):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise typer.BadParameter(f"nothing is to be changed; give at least one of {options}")


def _absolute(place: str) -> str:
    """A folder by its whole path, as a worker needs it; an id as it is."""
    path = Path(os.path.expanduser(place))  # `~name` of no user stays as it is
    return str(path.resolve()) if path.exists() else place
