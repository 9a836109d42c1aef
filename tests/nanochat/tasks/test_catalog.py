"""The table of tasks: every row can be loaded and judged, and everything that lists tasks follows it."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from nanochat.config import recipe
from nanochat.config.recipe import ChatEvalSpec, RlSpec, TaskUse
from nanochat.planning import plan
from nanochat.report import summary
from nanochat.tasks.base import reference
from nanochat.tasks.catalog import BY_NAME, JUDGED, REWARDED, SPLITS, TASKS, TRAINABLE, TaskDef, find_in_folder
from nanochat.tasks.judge import JUDGES
from nanochat.tasks.registry import named
from nanochat.tasks.rows import Rows
from nanochat.tasks.source import TaskSource

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
# Splits of which ../shared/data holds only a part.
SAMPLED = {"mmlu/auxiliary_train", "smoltalk/train", "smoltalk/test"}


@pytest.mark.parametrize("task", [t for t in TASKS if t.kind != "file"], ids=lambda t: t.name)
def test_every_task_loads_and_is_judged_as_its_row_says(task: TaskDef, source: TaskSource) -> None:
    easy = source.files["arc_easy/test"]
    source = replace(source, files={**source.files, "arc_challenge/test": easy})  # the small folder lacks it
    split = next(s for s in reversed(task.split_names) if task.kind == "generated" or f"{task.name}/{s}" in source.files)
    loaded = named(task.name, split, source, size=5)
    assert loaded.name == task.name
    assert loaded.eval_type == ("categorical" if task.judge == "letter" else "generative")
    if task.judge is None:
        with pytest.raises(TypeError, match="training only"):
            loaded.evaluate(loaded[0], "x")
    else:
        assert loaded.evaluate(loaded[0], reference(loaded[0]))


def test_every_judge_is_used_and_known() -> None:
    assert {t.judge for t in TASKS if t.judge} == set(JUDGES)


def test_names_are_unique_and_every_task_is_trained_on_or_judged() -> None:
    assert len(BY_NAME) == len(TASKS)
    assert set(TRAINABLE) | set(JUDGED) == set(BY_NAME)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_recipes_report_and_planner_follow_the_table(task: TaskDef) -> None:
    for names, accept in (
        (TRAINABLE, lambda name: TaskUse(task=name)),
        (JUDGED, lambda name: ChatEvalSpec(tasks=(name,))),
        (REWARDED, lambda name: RlSpec(task=name)),
    ):
        if task.name in names:
            accept(task.name)
        else:
            with pytest.raises(ValidationError, match="Input should be"):
                accept(task.name)
    assert (task.name in summary.TASKS) == (task.judge is not None)
    if task.is_trainable and task.kind != "file":
        split = next(s for s in task.split_names if s != "test")
        mixture = [{"task": task.name, "split": split, "limit": 10}]
        mid = plan.plan(recipe.resolve("speedrun", {"mid.train": mixture})).stages[1]
        assert mid.steps is not None


@pytest.mark.parametrize("name", recipe.names())
def test_the_length_of_every_shipped_recipe_is_known(name: str) -> None:
    assert all(stage.steps is not None for stage in plan.plan(recipe.resolve(name)).stages)


def test_a_task_that_is_taken_out_of_the_table_is_refused_everywhere(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "libs", tmp_path / "libs", ignore=shutil.ignore_patterns("__pycache__"))
    table = tmp_path / "libs/nanochat/tasks/catalog.py"
    lines = table.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if 'TaskDef("sums"' not in line]
    assert len(kept) == len(lines) - 1
    table.write_text("\n".join(kept), encoding="utf-8")
    code = "from nanochat.config import recipe; recipe.resolve('tiny')"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "libs")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode
    for field in ("mid.train.", "sft.train.", "chat_eval.tasks."):
        assert field in done.stderr


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("key", sorted(set(SPLITS) - SAMPLED))
def test_the_rows_in_the_table_are_those_of_the_data(key: str) -> None:
    paths = find_in_folder(SHARED).get(key)
    if paths is None:
        pytest.skip(f"../shared/data lacks {key}")
    assert len(Rows.read(paths)) == SPLITS[key].rows
