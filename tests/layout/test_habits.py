"""Tools for contributors: make help, commit hooks, templates, the devcontainer, typed packages, coverage."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TYPED = ("nanochat", "controlplane", "client")


def run(*command: str | Path, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, **env})


# -- make --


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([A-Za-z0-9_%-]+):(?!=)", text, re.M))


def test_make_help_describes_every_target() -> None:
    described = dict(re.findall(r"^(\S+)\s+(\S.*)$", run("make", "-s", "help").stdout, re.M))
    assert described.keys() == targets()


def test_every_target_but_patterns_is_phony() -> None:
    phony = re.findall(r"^\.PHONY:(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert set(" ".join(phony).split()) == {t for t in targets() if "%" not in t}


# -- hooks --


def hooks() -> list[dict[str, str]]:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [r["repo"] for r in repositories] == ["local"], "hooks from other hosts would have to be downloaded"
    return list(repositories[0]["hooks"])


def test_the_hooks_run_tools_of_this_environment() -> None:
    assert [h["id"] for h in hooks()] == ["ruff-check", "ruff-format", "mypy", "lint-imports"]
    for hook in hooks():
        folder, tool = hook["entry"].split()[0].rsplit("/", 1)
        assert folder == ".venv/bin"
        assert (BIN / tool).exists(), f"{tool} is not in requirements.lock"


@pytest.mark.parametrize(("text", "passes"), [("x = 1\n", True), ("x=1\n", False), ("import os\n", False)])
def test_a_commit_with_ruff_findings_is_refused(tmp_path: Path, text: str, passes: bool) -> None:
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(BIN.parent)
    (tmp_path / "file.py").write_text(text, encoding="utf-8")
    run("git", "init", "-q", cwd=tmp_path)
    run("git", "add", "file.py", cwd=tmp_path)
    done = run(BIN / "pre-commit", "run", cwd=tmp_path, PRE_COMMIT_HOME=str(tmp_path / "cache"))
    assert (done.returncode == 0) == passes, done.stdout + done.stderr


# -- packages --


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a wheel built from the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_the_wheel_says_that_its_packages_are_typed(wheel: list[str]) -> None:
    assert {f"{package}/py.typed" for package in TYPED} <= set(wheel)


def test_the_wheel_contains_the_recipes_and_no_tests(wheel: list[str]) -> None:
    recipes = {f"nanochat/config/recipes/{p.name}" for p in (ROOT / "libs/nanochat/config/recipes").glob("*.toml")}
    assert recipes
    assert recipes <= set(wheel)
    assert {"nanochat/report/page/page.html", "nanochat/report/page/style.css"} <= set(wheel)
    assert not [name for name in wheel if name.startswith(("tests/", "benchmarks/"))]


# -- templates --


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("vendor.github-issue-forms", "[!c]*.yml"), ("vendor.github-issue-config", "config.yml")],
)
def test_issue_templates_are_valid(schema: str, pattern: str) -> None:
    files = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob(pattern))
    assert files
    done = run(BIN / "check-jsonschema", "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "keepachangelog.com" in text
    assert re.findall(r"^## (.*)", text, re.M)[0] == "[Unreleased]"
    assert set(re.findall(r"^### (.*)", text, re.M)) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# -- devcontainer --


def test_the_devcontainer_makes_the_environment() -> None:
    folder = ROOT / ".devcontainer"
    settings = json.loads((folder / "devcontainer.json").read_text(encoding="utf-8"))
    assert settings["build"]["dockerfile"] == "Dockerfile"
    command, *made = settings["postCreateCommand"].split()
    assert command == "make"
    assert made[0] == "env"
    assert set(made) <= targets()
    assert f"useradd --uid 1000 --create-home --shell /bin/bash {settings['remoteUser']}" in (folder / "Dockerfile").read_text()


def test_the_devcontainer_has_the_versions_of_the_images_and_the_packages_of_ci() -> None:
    ours = (ROOT / ".devcontainer" / "Dockerfile").read_text(encoding="utf-8")
    images = (ROOT / "services" / "worker" / "Dockerfile").read_text(encoding="utf-8")
    bases = re.compile(r"^ARG (?:BASE|RUST)=.*", re.M)
    assert bases.findall(ours) == bases.findall(images)
    in_ci = re.findall(r"--no-install-recommends ([\w .-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    in_ours = re.findall(r"--no-install-recommends ([\w .-]+)", ours)
    assert set(in_ci[0].split()) <= set(in_ours[0].split())


# -- coverage --


@pytest.mark.parametrize(
    "start",
    [
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import client.text'], check=True)\n",
        "import os\nif os.fork():\n    os.wait()\nelse:\n    import client.text\n    os._exit(0)\n",
    ],
    ids=["a new process", "a fork, as Celery makes one for each stage"],
)
def test_coverage_counts_what_runs_in_another_process(tmp_path: Path, start: str) -> None:
    parent = tmp_path / "parent.py"
    parent.write_text(start, encoding="utf-8")
    data = {"COVERAGE_FILE": str(tmp_path / "data")}
    for command in (["run", str(parent)], ["combine", "-q"]):
        done = run(BIN / "coverage", *command, **data)
        assert done.returncode == 0, done.stdout + done.stderr
    report = run(BIN / "coverage", "report", "--include=libs/client/*", **data).stdout
    assert re.search(r"libs/client/text\.py +\d+ +\d+ +[1-9]\d*%", report), report
