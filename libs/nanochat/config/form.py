"""The fields of a recipe as a flat list, for forms and for help: what each means, its unit, its bounds and its default. Imports no torch.

Everything is read from the recipe's own JSON schema, so a new field needs nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, Field

from nanochat.config.recipe import Recipe

Json = dict[str, Any]
Kind = Literal["integer", "number", "boolean", "string", "choice", "list", "table"]

GENERAL = "general"  # the group of the fields that are in no section
SECTIONS = {
    "from": "Model to start from",
    "tok_eval": "Tokenizer evaluation",
    "base": "Pretraining",
    "base_eval": "Base evaluation",
    "mid": "Midtraining",
    "sft": "Supervised finetuning",
    "rl": "Reinforcement learning",
    "chat_eval": "Chat evaluation",
}
# Names of fields that are not words yet, and parts of names.
NAMES = {"enabled": "Part of the run", "num_iterations": "Steps", "param_data_ratio": "Tokens per parameter"}
WORDS = {
    "bpb": "bits per byte",
    "core": "CORE",
    "dim": "dimension",
    "eval": "evaluation",
    "flops": "FLOPs",
    "frac": "fraction",
    "init": "initial",
    "len": "length",
    "lr": "LR",
    "mlp": "MLP",
    "num": "number of",
    "qk": "QK",
    "rope": "RoPE",
    "seq": "sequence",
    "std": "standard deviation",
    "tok": "tokenizer",
    "url": "URL",
    "val": "validation",
}
_KINDS: dict[str, Kind] = {
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "string": "string",
    "array": "list",
}
_BOUNDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "exclusiveMaximum": "exclusive_maximum",
}


class RecipeField(BaseModel):
    """One field of a recipe."""

    path: str = Field(description="Dotted path: the name under which an override sets it.")
    title: str = Field(description="Its name for people.")
    type: Kind = Field(description="What it holds. A `list` or a `table` is written as JSON.")
    description: str = Field(description="What it does.")
    unit: str = Field(default="", description="Its unit; empty if it has none.")
    default: Any = Field(default=None, description="Its value where a recipe says nothing: that of nanochat's d20 speedrun.")
    nullable: bool = Field(default=False, description="Whether it may be null.")
    required: bool = Field(default=False, description="Whether its section must have it, because it has no default.")
    choices: list[Any] = Field(default=[], description="All values that it may have, of a `choice`.")
    special: list[Any] = Field(default=[], description="Values beyond its bounds that it may have too, such as -1 or auto.")
    minimum: float | None = Field(default=None, description="Smallest value.")
    maximum: float | None = Field(default=None, description="Greatest value.")
    exclusive_minimum: float | None = Field(default=None, description="Value that it must be greater than.")
    exclusive_maximum: float | None = Field(default=None, description="Value that it must be less than.")
    pattern: str | None = Field(default=None, description="Regular expression that a text must match.")
    only_if: dict[str, str] = Field(
        default={},
        description="It is there only while these fields have these values, which an override of it must then name as well; empty: "
        "always.",
    )


class RecipeGroup(BaseModel):
    """A section of a recipe."""

    name: str = Field(description="Name of the section; `general` holds the fields that are in none.")
    title: str = Field(description="Its name for people.")
    description: str = Field(description="What it is about.")
    enabled_by: str | None = Field(description="Path of the field that switches it on; null if it is always on.")
    fields: list[RecipeField] = Field(description="Its fields, also those of its own sections.")


@lru_cache(maxsize=1)
def groups() -> tuple[RecipeGroup, ...]:
    """All fields of a recipe by section, in the order of the recipe."""
    schema = Recipe.model_json_schema(by_alias=True)
    definitions: Json = schema["$defs"]
    defaults = Recipe().model_dump(mode="json", by_alias=True)
    found = [RecipeGroup(name=GENERAL, title="General", description="The run as a whole.", enabled_by=None, fields=[])]
    for name, given in schema["properties"].items():
        section, nullable = _section(given, definitions)
        if section is None:
            found[0].fields += _fields(name, given, defaults[name], definitions, {})
            continue
        fields = list(_fields(name, given, defaults[name], definitions, {}))
        switch = f"{name}.enabled"
        found.append(
            RecipeGroup(
                name=name,
                title=_title(name),
                description=" ".join(section.get("description", given["description"]).split()),
                enabled_by=switch if any(field.path == switch for field in fields) else name if nullable else None,
                fields=fields,
            )
        )
    return tuple(found)


def differences(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, by path, whose value in this recipe is not the default. A list, or a table of several forms, differs as a whole."""
    return dict(_differences(recipe, Recipe().model_dump(mode="json", by_alias=True), ""))


def _differences(recipe: Any, usual: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(recipe, Mapping) and isinstance(usual, Mapping) and "kind" not in recipe:
        for key, value in recipe.items():
            yield from _differences(value, usual.get(key), f"{path}.{key}" if path else key)
    elif recipe != usual:
        yield path, recipe


def _section(given: Json, definitions: Json) -> tuple[Json | None, bool]:
    """The table that a field holds, and whether it may be null; None if it holds a plain value."""
    kinds = [kind for kind in given.get("anyOf", [given]) if kind.get("type") != "null"]
    if len(kinds) == 1 and "$ref" in kinds[0]:
        return definitions[kinds[0]["$ref"].rsplit("/", 1)[1]], len(kinds) < len(given.get("anyOf", [given]))
    return None, False


def _fields(
    path: str, given: Json, default: Any, definitions: Json, only_if: dict[str, str], required: bool = False
) -> Iterator[RecipeField]:
    if "discriminator" in given:
        yield from _variants(path, given, default, definitions)
        return
    section, _ = _section(given, definitions)
    if section is not None and "properties" in section:
        for key, inner in section["properties"].items():
            needed = key in section.get("required", ()) and default is None
            yield from _fields(f"{path}.{key}", inner, _of(default, key, inner), definitions, only_if, needed)
        return
    yield _field(path, given, default, only_if, required)


def _variants(path: str, given: Json, default: Any, definitions: Json) -> Iterator[RecipeField]:
    """A table that has a form for each value of one of its fields."""
    key, variants = given["discriminator"]["propertyName"], given["discriminator"]["mapping"]
    yield RecipeField(
        path=f"{path}.{key}",
        title=_title(path),
        type="choice",
        description=given["description"],
        default=_of(default, key, {}),
        choices=list(variants),
    )
    for name, reference in variants.items():
        section = definitions[reference.rsplit("/", 1)[1]]
        own = default if _of(default, key, {}) == name else {}
        for inner, field in section["properties"].items():
            if inner != key:
                needed = inner in section.get("required", ())
                yield from _fields(
                    f"{path}.{inner}", field, _of(own, inner, field), definitions, {f"{path}.{key}": name}, needed
                )


def _field(path: str, given: Json, default: Any, only_if: dict[str, str], required: bool) -> RecipeField:
    kinds = given.get("anyOf", [given])
    plain = next((kind for kind in kinds if kind.get("type") != "null" and "const" not in kind), given)
    bounds = {name: plain[key] for key, name in _BOUNDS.items() if key in plain}
    return RecipeField(
        path=path,
        title=_title(path),
        type=_kind(plain),
        description=given.get("description", ""),
        unit=given.get("unit") or plain.get("unit", ""),
        default=default,
        nullable=any(kind.get("type") == "null" for kind in kinds),
        required=required,
        choices=plain.get("enum", []),
        special=[kind["const"] for kind in kinds if "const" in kind],
        pattern=plain.get("pattern"),
        only_if=only_if,
        **bounds,
    )


def _kind(plain: Json) -> Kind:
    if "enum" in plain:
        return "choice"
    return _KINDS.get(plain.get("type", ""), "table")


def _of(table: Any, key: str, field: Json) -> Any:
    return table[key] if isinstance(table, Mapping) and key in table else field.get("default")


def _title(path: str) -> str:
    """The last part of the path in words; the name of a section as people say it."""
    name = path.rsplit(".", 1)[-1]
    words = " ".join(WORDS.get(part, part) for part in name.split("_"))
    return SECTIONS.get(path) or NAMES.get(name) or words[0].upper() + words[1:]
