"""A whole run as typed, validated data: what to train, on what, for how long. Imports no torch.

A recipe is a TOML file under `recipes/` or a table such as the JSON object of a request. `resolve` applies dotted overrides to
it and returns a frozen `Recipe`. Defaults are those of nanochat's d20 speedrun (MIT, November 2025), so `Recipe()` is that run.
The sections are defined in the `*_spec.py` files beside this one; import them from here.
"""

from __future__ import annotations

import copy
import itertools
import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from nanochat.config import scaling
from nanochat.config.data_spec import SPECIAL_TOKENS, DataSpec, FolderSource, HttpSource, PydocsSource, TokenizerSpec
from nanochat.config.eval_spec import BaseEvalSpec, ChatEvalSpec, TokEvalSpec
from nanochat.config.from_spec import FromSpec
from nanochat.config.model_spec import AdamSpec, InitSpec, ModelSpec, OptimSpec, Spec
from nanochat.config.train_spec import BaseSpec, MidSpec, Packing, RlSpec, SftSpec, TrainSpec
from nanochat.contract.bounds import Description
from nanochat.tasks.use import TaskUse

__all__ = [
    "SPECIAL_TOKENS",
    "AdamSpec",
    "BaseEvalSpec",
    "BaseSpec",
    "ChatEvalSpec",
    "DataSpec",
    "FolderSource",
    "FromSpec",
    "HttpSource",
    "InitSpec",
    "MidSpec",
    "ModelSpec",
    "OptimSpec",
    "Packing",
    "PydocsSource",
    "Recipe",
    "RecipeError",
    "RlSpec",
    "SftSpec",
    "Spec",
    "TaskUse",
    "TokenizerSpec",
    "TrainSpec",
    "load",
    "names",
    "resolve",
]

ROUNDS = 5  # looks at a recipe with faults: later ones see what earlier faults hid


class RecipeError(ValueError):
    """The recipe cannot run. `problems` is a list of (field, what is wrong with it and what to do).

    `rest` is the recipe with defaults in the place of its wrong fields, for further checks; None if nothing is left to check.
    """

    def __init__(self, problems: list[tuple[str, str]], rest: Recipe | None = None):
        self.problems, self.rest = problems, rest
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems))


class Recipe(Spec):
    """A whole run: what to train, on what, for how long. What a recipe leaves out is as in nanochat's d20 speedrun."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(default="speedrun", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", description="Name of the recipe.")
    description: Description = Field(default="", description="What the recipe is for, in a sentence or two.")
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Seed of the initial weights, the order of pretraining text and sampling."
    )
    from_: FromSpec | None = Field(
        default=None,
        alias="from",
        description="A model to start from; null means fresh weights and a tokenizer of the run's own.",
    )
    data: DataSpec = Field(default=DataSpec(), description="Text, task data and the CORE bundle.")
    tokenizer: TokenizerSpec = Field(default=TokenizerSpec(), description="The tokenizer.")
    tok_eval: TokEvalSpec = Field(default=TokEvalSpec(), description="Evaluation of the tokenizer.")
    model: ModelSpec = Field(default=ModelSpec(), description="The transformer.")
    base: BaseSpec = Field(default=BaseSpec(), description="Pretraining.")
    base_eval: BaseEvalSpec = Field(default=BaseEvalSpec(), description="Evaluation of the pretrained model.")
    mid: MidSpec = Field(default=MidSpec(), description="Midtraining.")
    sft: SftSpec = Field(default=SftSpec(), description="Supervised finetuning.")
    rl: RlSpec = Field(default=RlSpec(), description="Reinforcement learning, off unless `rl.enabled`.")
    chat_eval: ChatEvalSpec = Field(default=ChatEvalSpec(), description="Evaluation of the chat models.")

    @model_validator(mode="after")
    def _batches_divide(self) -> Recipe:
        found = {}
        for name in ("base", "mid"):
            spec = getattr(self, name)
            if spec.total_batch_size % self.model.seq_len:
                below = max(1, spec.total_batch_size // self.model.seq_len) * self.model.seq_len
                found[f"{name}.total_batch_size"] = (
                    f"{name}.total_batch_size {spec.total_batch_size} is not a multiple of model.seq_len {self.model.seq_len}; "
                    f"the nearest that fit are {below} and {below + self.model.seq_len}"
                )
        if found:
            raise PydanticCustomError("indivisible", "{text}", {"text": "; ".join(found.values()), "found": found})
        return self


# -- resolving --


def names() -> list[str]:
    """Sorted names of the recipes that ship with the project."""
    return sorted(
        p.name.removesuffix(".toml") for p in resources.files("nanochat.config.recipes").iterdir() if p.name.endswith(".toml")
    )


def load(name: str) -> dict[str, Any]:
    """Read the table of a shipped recipe, or of a TOML file if `name` ends in `.toml`. Raises RecipeError if there is none."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise RecipeError([("recipe", f"{name} is a folder" if path.is_dir() else f"no file {name}")])
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as err:
            why = "it is not UTF-8 text; save it as UTF-8" if isinstance(err, UnicodeDecodeError) else err.strerror
            raise RecipeError([("recipe", f"{name} cannot be read: {why}")]) from err
    elif name in names():
        text = resources.files("nanochat.config.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError([("recipe", f"unknown recipe {name!r}; known: {', '.join(names())}")])
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as err:  # a number with thousands of digits, or thousands of brackets
        why = "it is nested too deeply" if isinstance(err, RecursionError) else str(err)
        raise RecipeError([("recipe", f"{name} is not valid TOML: {why}")]) from err
    if not table:  # it would be a run of all defaults, which takes days on one GPU
        raise RecipeError([("recipe", f'{name} has no field; for a run with all defaults write a name: name = "…"')])
    return table


def resolve(recipe: str | dict[str, Any], overrides: dict[str, Any] | None = None) -> Recipe:
    """Validate a recipe, given by name or as a table, with dotted overrides such as `{"base.num_iterations": 20}`.

    An override whose value is a table is merged into the old table key by key. If the two differ in `kind`, as those of
    `data.source` may, it replaces the old table. Raises RecipeError, which names every wrong field.
    """
    table = load(recipe) if isinstance(recipe, str) else copy.deepcopy(recipe)
    given = copy.deepcopy(overrides or {})  # wrong fields are taken out below
    problems = [problem for dotted, value in given.items() if (problem := _set(table, dotted, value))]
    made, found = _validated(table)
    for _ in range(ROUNDS):
        # A fault in a section hides those that need the whole recipe, so look once more with the wrong fields taken out.
        problems += [(field, text) for field, text, _ in found if not _touches(field, problems)]
        if made is not None:
            break
        for _, _, loc in found:
            _take_out(table, loc)
        made, found = _validated(table)
    if problems or made is None:
        raise RecipeError(problems, made)
    return made


Loc = tuple[int | str, ...]  # place in the table


def _validated(table: dict[str, Any]) -> tuple[Recipe | None, list[tuple[str, str, Loc]]]:
    """The recipe, or every fault that this look finds: field, what is wrong, and what to take out to look beyond it."""
    try:
        # JSON in strict mode: "5" and true are not numbers, but a list is a tuple.
        return Recipe.model_validate_json(json.dumps(_plain(_with_batch_size(table))), strict=True), []
    except ValidationError as err:
        faults = [fault for error in err.errors() for fault in _faults(error)]
    fields = [field for field, _, _ in faults]
    # A list whose only entry is wrong is also called too short.
    return None, [fault for fault in faults if not any(field.startswith(f"{fault[0]}.") for field in fields)]


def _faults(error: Any) -> list[tuple[str, str, Loc]]:
    if error["type"] == "indivisible":  # of the whole recipe: pydantic has no place for it
        return [(field, text, tuple(field.split("."))) for field, text in error["ctx"]["found"].items()]
    loc = _without_tags(error["loc"])
    return [(".".join(map(str, loc)) or "recipe", _message(error), loc[:-1] if error["type"] == "missing" else loc)]


def _touches(field: str, problems: list[tuple[str, str]]) -> bool:
    """Whether a fault may come from a field that was taken out, and so is none of the user's."""
    named = {name for name, _ in problems}
    sections = {name.partition(".")[0] for name in named}
    return field in named or (field.endswith(".total_batch_size") and bool(sections & {"model", field.partition(".")[0]}))


def _take_out(table: dict[str, Any], loc: Loc) -> None:
    """Remove the field at `loc`; if it is in a list, the whole list."""
    *parents, leaf = [str(key) for key in itertools.takewhile(lambda key: isinstance(key, str), loc)] or [""]
    for key in parents:
        table = table.get(key, {})
    table.pop(leaf, None)


def _set(table: dict[str, Any], dotted: str, value: Any) -> tuple[str, str] | None:
    """Override one field. Returns what is wrong if its parent is no table."""
    *parents, leaf = dotted.split(".")
    for key in parents:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            return dotted, f"{key!r} is not a table"
    old = table.get(leaf)
    same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
    table[leaf] = {**old, **value} if same_kind and isinstance(old, dict) else value
    return None


def _with_batch_size(table: dict[str, Any]) -> dict[str, Any]:
    """Put a number in the place of the batch size "auto", so that every reader of a validated recipe finds a number."""
    base = table.get("base")
    if not isinstance(base, dict) or base.get("total_batch_size") != "auto":
        return table
    try:
        model = ModelSpec.model_validate(table.get("model", {}))
        size = scaling.batch_size(model, TokenizerSpec.model_validate(table.get("tokenizer", {})).vocab_size)
    except ValidationError:
        size = 524_288  # a placeholder: the sections' own validation reports the wrong fields
    return {**table, "base": {**base, "total_batch_size": size}}


def _plain(value: Any) -> Any:
    """JSON knows no difference between 1000, 1e3 and 1000.0, so neither does a recipe. Dates and times of TOML become text."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int | float | None) else str(value)


def _without_tags(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    # Pydantic puts the tag of a union member into the path; users do not write it, so leave it out.
    return tuple(p for i, p in enumerate(loc) if not (i and loc[i - 1] == "source" and p in ("pydocs", "folder", "http")))


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; remove it or check the spelling"
    if error["type"] == "too_short" and len(error["loc"]) == 2 and error["loc"][0] in ("mid", "sft"):
        return f"an empty mixture: name at least 1 item, or leave the stage out with {error['loc'][0]}.enabled = false"
    return str(error["msg"]).removeprefix("Value error, ")
