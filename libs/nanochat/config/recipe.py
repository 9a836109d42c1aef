"""A whole run as typed, validated data: what to train, on what, for how long. Imports no torch.

A recipe is a TOML file under `recipes/` or an inline JSON object; `resolve` turns a name plus dotted overrides into a
frozen `Recipe`. Defaults are the numbers of the nanochat d20 speedrun (MIT, November 2025), so `Recipe()` is that run.
"""

from __future__ import annotations

import copy
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from nanochat.config import scaling
from nanochat.config.data_spec import SPECIAL_TOKENS, DataSpec, FolderSource, HttpSource, PydocsSource, TokenizerSpec
from nanochat.config.eval_spec import BaseEvalSpec, ChatEvalSpec
from nanochat.config.model_spec import AdamSpec, InitSpec, ModelSpec, OptimSpec, Spec
from nanochat.config.train_spec import BaseSpec, MidSpec, Packing, RlSpec, SftSpec, TrainSpec
from nanochat.tasks.use import TaskUse

__all__ = [
    "SPECIAL_TOKENS",
    "AdamSpec",
    "BaseEvalSpec",
    "BaseSpec",
    "ChatEvalSpec",
    "DataSpec",
    "FolderSource",
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
    "parse_overrides",
    "resolve",
]


class RecipeError(ValueError):
    """A recipe that cannot run. `problems` lists (field, what is wrong and what to do)."""

    def __init__(self, problems: list[tuple[str, str]]):
        self.problems = problems
        super().__init__("; ".join(f"{field}: {text}" for field, text in problems))


class Recipe(Spec):
    name: str = Field(default="speedrun", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    description: str = ""
    seed: int = 42
    data: DataSpec = DataSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    model: ModelSpec = ModelSpec()
    base: BaseSpec = BaseSpec()
    base_eval: BaseEvalSpec = BaseEvalSpec()
    mid: MidSpec = MidSpec()
    sft: SftSpec = SftSpec()
    rl: RlSpec = RlSpec()
    chat_eval: ChatEvalSpec = ChatEvalSpec()

    @model_validator(mode="before")
    @classmethod
    def _auto_batch(cls, table: Any) -> Any:
        # Here, not where it is used: whatever reads a validated recipe finds a number.
        base = table.get("base") if isinstance(table, dict) else None
        if not isinstance(base, dict) or base.get("total_batch_size") != "auto":
            return table
        try:
            model = ModelSpec.model_validate(table.get("model", {}))
            size = scaling.batch_size(model, TokenizerSpec.model_validate(table.get("tokenizer", {})).vocab_size)
        except ValidationError:
            size = 524_288  # the fields that are wrong are reported by their own checks
        return {**table, "base": {**base, "total_batch_size": size}}

    @model_validator(mode="after")
    def _batches_divide(self) -> Recipe:
        for name in ("base", "mid"):
            spec = getattr(self, name)
            if spec.total_batch_size % self.model.seq_len:
                below = max(1, spec.total_batch_size // self.model.seq_len) * self.model.seq_len
                raise PydanticCustomError(
                    "indivisible",
                    "{field} {value} is not a multiple of model.seq_len {seq_len}; the nearest that fit are {below} and {above}",
                    {
                        "field": f"{name}.total_batch_size",
                        "value": spec.total_batch_size,
                        "seq_len": self.model.seq_len,
                        "below": below,
                        "above": below + self.model.seq_len,
                    },
                )
        return self


# -- resolving --


def names() -> list[str]:
    """Names of the recipes that ship with the project, sorted."""
    return sorted(
        p.name.removesuffix(".toml") for p in resources.files("nanochat.config.recipes").iterdir() if p.name.endswith(".toml")
    )


def load(name: str) -> dict[str, Any]:
    """The raw table of a shipped recipe, or of a TOML file when `name` is a path. Raises RecipeError when there is none."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise RecipeError([("recipe", f"no file {name}")])
        text = path.read_text(encoding="utf-8")
    elif name in names():
        text = resources.files("nanochat.config.recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise RecipeError([("recipe", f"unknown recipe {name!r}; known: {', '.join(names())}")])
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        raise RecipeError([("recipe", f"{name} is not valid TOML: {err}")]) from err


def resolve(recipe: str | dict[str, Any], overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe's name or table, plus dotted overrides (`{"base.num_iterations": 20}`), as a validated Recipe.

    A table value replaces a table of the same kind key by key, except a tagged one whose `kind` changes, which it
    replaces whole. Raises RecipeError naming each field.
    """
    table = load(recipe) if isinstance(recipe, str) else copy.deepcopy(recipe)
    for dotted, value in (overrides or {}).items():
        _set(table, dotted, value)
    try:
        return Recipe.model_validate(table)
    except ValidationError as err:
        raise RecipeError([(_named(e) or _field(e["loc"]), _message(e)) for e in err.errors()]) from err


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """`a.b=value` pairs as a command line gives them; a value is JSON when it parses as JSON, else text. Raises RecipeError."""
    found = {}
    for pair in pairs:
        key, sep, text = pair.partition("=")
        if not sep:
            raise RecipeError([(pair, "write overrides as field=value")])
        try:
            found[key] = json.loads(text)
        except json.JSONDecodeError:
            found[key] = text
    return found


def _set(table: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for key in parents:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError([(dotted, f"{key!r} is not a table")])
    old = table.get(leaf)
    same_kind = isinstance(old, dict) and isinstance(value, dict) and value.get("kind", old.get("kind")) == old.get("kind")
    table[leaf] = {**old, **value} if same_kind and isinstance(old, dict) else value


def _named(error: Any) -> str | None:
    # A check over several fields sits at their common parent; it names the field to change in its context.
    return str(error["ctx"]["field"]) if error["type"] == "indivisible" else None


def _field(loc: tuple[int | str, ...]) -> str:
    # Pydantic puts a union member's tag into the path; the user never wrote it.
    return (
        ".".join(str(p) for i, p in enumerate(loc) if not (i and loc[i - 1] == "source" and p in ("pydocs", "folder", "http")))
        or "recipe"
    )


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown field; remove it or check the spelling"
    return str(error["msg"]).removeprefix("Value error, ")
