"""Every field of every section of a recipe has bounds, which are shown in the JSON schema and enforced."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nanochat.config.recipe import Recipe, RecipeError, resolve
from nanochat.contract.bounds import one_line
from nanochat.planning.plan import plan

SCHEMA = Recipe.model_json_schema()
SHORT_TEXT = 5000


def leaves(schema: dict[str, Any], path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """Every value that a recipe can hold, with its path; a number in a path is a place in a list."""
    if "$ref" in schema:
        yield from leaves(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
    for choice in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from leaves(choice, path)
    if "properties" in schema:
        for name, inner in schema["properties"].items():
            yield from leaves(inner, (*path, name))
    elif "type" in schema or "const" in schema or "enum" in schema:
        yield path, schema
    if isinstance(schema.get("items"), dict):
        yield from leaves(schema["items"], (*path, 0))
    for place, inner in enumerate(schema.get("prefixItems", [])):
        yield from leaves(inner, (*path, place))


FIELDS = [(".".join(map(str, path)), schema) for path, schema in leaves(SCHEMA)]
NUMBERS = [(path, schema) for path, schema in FIELDS if schema.get("type") in ("integer", "number") and "const" not in schema]


def is_bounded(schema: dict[str, Any]) -> bool:
    if "const" in schema or "enum" in schema:
        return True
    match schema["type"]:
        case "integer" | "number":
            low, high = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
            return any(key in schema for key in low) and any(key in schema for key in high)
        case "string":
            return schema.get("maxLength", math.inf) <= SHORT_TEXT or _fixed_length(schema.get("pattern", ""))
        case "array":
            return "maxItems" in schema and "minItems" in schema
        case "object":
            return "maxProperties" in schema
    return schema["type"] in ("boolean", "null")


def _fixed_length(pattern: str) -> bool:
    return pattern.startswith("^") and pattern.endswith("}$")  # ends in a count, such as {0,62}


def test_the_walk_reaches_every_section() -> None:
    paths = {path for path, _ in FIELDS}
    for path in (
        "seed",
        "model.init.resid.1",
        "base.optim.value_embeds.lr",
        "data.source.sha256",
        "sft.train.0.repeat",
        "rl.size",
    ):
        assert path in paths
    assert len(paths) > 150


def test_every_field_has_bounds() -> None:
    assert [path for path, schema in FIELDS if not is_bounded(schema)] == []


@pytest.mark.parametrize(("path", "schema"), NUMBERS, ids=[path for path, _ in NUMBERS])
def test_a_number_beyond_its_bounds_is_refused_by_name(path: str, schema: dict[str, Any]) -> None:
    beyond = [
        schema["maximum"] * 1.0001 + 1 if "maximum" in schema else schema["exclusiveMaximum"],
        schema["minimum"] - 3 if "minimum" in schema else schema["exclusiveMinimum"],
        2**70 if schema["type"] == "integer" else -1e40,
        10**400,
        math.nan,
        math.inf,
    ]
    for value in beyond:
        wrong = round(value) if isinstance(value, float) and schema["type"] == "integer" and math.isfinite(value) else value
        with pytest.raises(RecipeError) as caught:
            resolve(_table(path, wrong))
        found = [text for field, text in caught.value.problems if field == path]
        assert found, (wrong, caught.value.problems)
        assert "unknown field" not in found[0]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model.depth", 30_000_000, "less than or equal to 1024"),
        ("seed", 2**70, "less than 4294967296"),
        ("seed", -1, "greater than or equal to 0"),
        ("sft.train", [], "at least 1 item"),
        ("mid.val", [], "at least 1 item"),
        ("chat_eval.tasks", [], "at least 1 item"),
        ("base.eval_every", 0, "write -1 to turn it off"),
        ("sft.metrics_every", 0, "write -1 to turn it off"),
        ("base.save_every", -2, "greater than or equal to -1"),
        ("name", "tiny\n", "pattern"),
        ("description", "x" * 2001, "2000"),
        ("data.source", {"kind": "folder", "path": "/x\n"}, "U+000A"),
    ],
)
def test_values_without_a_meaning_are_refused(path: str, value: object, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("tiny", {path: value})
    assert caught.value.problems[0][0].startswith(path)
    assert says in caught.value.problems[0][1]


@pytest.mark.parametrize(
    ("path", "value"), [("model.depth", "4"), ("rl.top_k", True), ("rl.enabled", 1), ("name", 7), ("seed", 1.5)]
)
def test_a_value_of_another_type_is_refused(path: str, value: object) -> None:
    with pytest.raises(RecipeError) as caught:
        resolve("tiny", {path: value})
    assert caught.value.problems[0][0] == path


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert resolve("tiny", {"base.num_iterations": 1e3}).base.num_iterations == 1000


def test_minus_one_turns_off_what_happens_every_so_many_steps() -> None:
    assert resolve("tiny", {"base.eval_every": -1, "base.save_every": -1}).base.eval_every == -1


def test_the_largest_recipe_is_planned_at_once() -> None:
    largest = {path: schema["maximum"] for path, schema in NUMBERS if path.startswith("model.") and "maximum" in schema}
    wide = {path: value for path, value in largest.items() if path in ("model.depth", "model.aspect_ratio", "model.head_dim")}
    recipe = resolve("speedrun", wide | {"model.window_pattern": "SL" * 512, "base.num_iterations": 10**8})
    began = time.process_time()
    plan(recipe, 8, "H100")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "name",
    [
        "a\u200bb",
        "\u200b",
        "a\nb",
        "a\u2028b",
        "\u3164",
        "\u202egnp.exe",
        "a\0b",
        "\ud800",
        "\u0301",
        "a\u200db",
        "\u200d🚀",
        "م\u200c",
        "か\u200d\u200cな",
    ],
)
def test_a_name_that_people_cannot_read_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"(invisible|no visible) character"):
        one_line(name)


@pytest.mark.parametrize(
    "name", ["first light", "größer 2×", "実験 7", "d20 🚀", "e\u0301", "👩🏽\u200d🚀 1", "❤️\u200d🔥", "می\u200cخواهم"]
)
def test_names_of_any_language_are_accepted(name: str) -> None:
    assert one_line(name) == name


def _table(path: str, value: object) -> dict[str, Any]:
    """A recipe that holds only this value. Lists are made as long as the place in the path needs."""
    first, _, rest = path.partition(".")
    if not rest:
        return {first: value}
    second = rest.partition(".")[0]
    if second.isdigit():
        inner = value if "." not in rest else _beside(_table(rest.partition(".")[2], value))
        return {first: [inner if i == int(second) else 0.5 for i in range(_length(first))]}
    table = _beside(_table(rest, value))
    return {first: table | ({"kind": "pydocs" if "max_chars" in table else "http"} if first == "source" else {})}


def _beside(table: dict[str, Any]) -> dict[str, Any]:
    """Add the fields without which a section is refused for another reason."""
    return (
        ({"lr": 0.1} if {"betas", "weight_decay"} & set(table) else {})
        | ({"task": "gsm8k"} if {"limit", "repeat", "size"} & set(table) else {})
        | table
    )


def _length(field: str) -> int:
    return 1 if field in ("train", "val") else 2
