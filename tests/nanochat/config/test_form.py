"""The fields of a recipe as a form shows them."""

from __future__ import annotations

from typing import Any

import pytest

from nanochat.config import form, recipe
from nanochat.config.form import RecipeField
from nanochat.config.recipe import Recipe

FIELDS = [field for group in form.groups() for field in group.fields]
BY_PATH: dict[str, RecipeField] = {field.path: field for field in FIELDS}


def leaves(table: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The values of a recipe by dotted path."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        inner = f"{path}.{key}" if path else key
        if isinstance(value, dict) and inner not in BY_PATH:
            found |= leaves(value, inner)
        else:
            found[inner] = value
    return found


def test_every_field_has_a_description_and_a_title() -> None:
    assert [field.path for field in FIELDS if len(field.description) < 10 or not field.title] == []
    assert [group.name for group in form.groups() if not group.description] == []


def test_titles_are_words() -> None:
    titles = {
        "mid.enabled": "Part of the run",
        "model.qk_scale": "QK scale",
        "mid.optim.matrix_lr": "Matrix LR",
        "seed": "Seed",
    }
    assert {path: BY_PATH[path].title for path in titles} == titles


def test_every_field_of_a_recipe_is_there_with_its_default() -> None:
    usual = leaves(Recipe().model_dump(mode="json", by_alias=True))
    usual.pop("from")  # a section that the default recipe does not have
    assert set(usual) <= set(BY_PATH)
    assert {path: BY_PATH[path].default for path in usual if not BY_PATH[path].only_if} == {
        path: value for path, value in usual.items() if not BY_PATH[path].only_if
    }
    assert {field.path for field in FIELDS if field.path.startswith("from.")} == {"from.model", "from.tokenizer", "from.first"}


def test_units_bounds_and_special_values_are_those_of_the_recipe() -> None:
    depth = BY_PATH["model.depth"]
    assert (depth.type, depth.unit, depth.exclusive_minimum, depth.maximum) == ("integer", "layers", 0, 1024)
    batch = BY_PATH["base.total_batch_size"]
    assert (batch.unit, batch.special, batch.default) == ("tokens", ["auto"], 524_288)
    assert BY_PATH["base.eval_every"].special == [-1]
    assert BY_PATH["base_eval.core_max_per_task"].nullable
    assert BY_PATH["base.precision"].choices == ["bf16", "fp8"]
    assert (BY_PATH["mid.train"].type, BY_PATH["mid.total_batch_size"].unit) == ("list", "tokens")
    assert BY_PATH["data.source.train_shards"].only_if == {"data.source.kind": "http"}
    assert BY_PATH["data.source.kind"].default == "http"
    (sft,) = [group for group in form.groups() if group.name == "sft"]
    assert (sft.title, sft.enabled_by) == ("Supervised finetuning", "sft.enabled")


@pytest.mark.parametrize("path", [f.path for f in FIELDS if f.maximum is not None and not f.only_if and f.type == "integer"])
def test_a_value_beyond_its_bound_is_what_the_recipe_refuses(path: str) -> None:
    if path.startswith("from."):
        pytest.skip("its section needs a model")
    beyond = BY_PATH[path].maximum
    assert beyond is not None
    with pytest.raises(recipe.RecipeError) as refused:
        recipe.resolve("speedrun", {path: int(beyond) + 1})
    assert path in {field for field, _ in refused.value.problems}


@pytest.mark.parametrize("name", recipe.names())
def test_the_differences_of_a_recipe_make_it_of_the_default_one(name: str) -> None:
    made = recipe.resolve(name).model_dump(mode="json", by_alias=True)
    changes = form.differences(made)
    assert recipe.resolve({}, changes).model_dump(mode="json", by_alias=True) == made
