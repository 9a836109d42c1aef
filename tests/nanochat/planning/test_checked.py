"""All problems of a recipe are reported in one go."""

import subprocess
import sys
from typing import Any

import pytest

from nanochat.config.recipe import RecipeError
from nanochat.planning import plan
from nanochat.planning.checked import checked

NOWHERE = {"kind": "folder", "path": "/nonexistent"}


def problems(overrides: dict[str, Any], recipe: str = "tiny") -> dict[str, str]:
    with pytest.raises(RecipeError) as caught:
        checked(recipe, overrides, plan.plan)
    found = caught.value.problems
    assert len(found) == len(set(found)), "a problem is named once"
    return dict(found)


def test_a_sound_recipe_is_planned() -> None:
    recipe, made = checked("tiny", {}, plan.plan)
    assert (recipe.name, made.recipe) == ("tiny", "tiny")


def test_fields_batches_and_data_are_named_together() -> None:
    found = problems(
        {
            "base.colour": 1,
            "tokenizer.max_chars.x": 3,
            "tokenizer.vocab_size": "many",
            "data.source": NOWHERE,
            "mid.total_batch_size": 4096 + 256,
            "sft.train": [],
            "rl.enabled": True,
            "rl.task": "gsm8k",
        }
    )
    assert set(found) == {
        "base.colour",
        "tokenizer.max_chars.x",
        "tokenizer.vocab_size",
        "data.source.path",
        "mid.total_batch_size",
        "sft.train",
        "rl.task",
    }
    assert "sft.enabled = false" in found["sft.train"]


def test_both_batches_that_do_not_divide_are_named() -> None:
    found = problems({"base.total_batch_size": 1000, "mid.total_batch_size": 1000})
    assert set(found) == {"base.total_batch_size", "mid.total_batch_size"}
    found = problems({"base.total_batch_size": 4096 + 256, "sft.examples_per_step": 12})
    assert set(found) == {"base.total_batch_size", "sft.examples_per_step"}


def test_a_wrong_field_makes_no_others_wrong() -> None:
    assert set(problems({"model.seq_len": "long", "base.total_batch_size": 768})) == {"model.seq_len"}
    assert set(problems({"mid.train": [{"task": "nonsense"}]})) == {"mid.train.0.task"}
    assert set(problems({"chat_eval.tasks": ["spelling", "nonsense"]})) == {"chat_eval.tasks.1"}
    assert set(problems({"data.source": {"kind": "folder"}})) == {"data.source.path"}
    assert set(problems({"model": 3})) == {"model"}
    assert set(problems({"mid": 3, "sft": 4})) == {"mid", "sft"}


def test_the_local_plan_refuses_a_folder_that_is_not_there() -> None:
    command = [sys.executable, "-m", "nanochat.local.plan", "tiny", "--gpus", "8", "--gpu", "H100"]
    overrides = '{"data.source": {"kind": "folder", "path": "/nonexistent"}, "base.colour": 1}'
    done = subprocess.run([*command, "--overrides", overrides], capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "data.source.path: no folder /nonexistent" in done.stderr
    assert "base.colour: unknown field" in done.stderr


def test_the_overrides_of_the_caller_stay_as_they_are() -> None:
    overrides = {"data.source": {"kind": "folder", "path": "/" + "x" * 5000}}
    assert problems(overrides) == problems(overrides)
    assert "4096" in problems(overrides)["data.source.path"]
