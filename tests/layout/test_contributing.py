"""Every worked example of CONTRIBUTING.md applies to the tree, and its check passes there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTION = re.compile(r"^## (Add .*?)\n(.*?)(?=^## |\Z)", re.M | re.S)
BLOCK = re.compile(r"^```(diff|python)\n(.*?)^```$", re.M | re.S)
SECTIONS = {title: BLOCK.findall(body) for title, body in SECTION.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))}


def test_every_kind_of_addition_has_a_worked_example() -> None:
    assert set(SECTIONS) == {"Add a task", "Add a switch to the recipe", "Add a stage", "Add a metric", "Add a GPU"}
    assert all({kind for kind, _ in blocks} == {"diff", "python"} for blocks in SECTIONS.values())


@pytest.mark.parametrize("title", SECTIONS)
def test_the_example_works(title: str, tmp_path: Path) -> None:
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("libs", "services"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=skip)
    # The ceiling keeps git from looking for a repository above the copy.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    for change in (text for kind, text in SECTIONS[title] if kind == "diff"):
        command = ["git", "apply", "-"]
        applied = subprocess.run(command, input=change, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert applied.returncode == 0, applied.stderr + change
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "libs"), str(tmp_path)])}
    for check in (text for kind, text in SECTIONS[title] if kind == "python"):
        checked = subprocess.run(
            [sys.executable, "-c", check], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
        )
        assert checked.returncode == 0, checked.stderr
