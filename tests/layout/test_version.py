"""The version comes from the git tags. Without tags (fresh clone, tarball, Docker build) there is a fallback."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FALLBACK = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["version"]["fallback-version"]
AUTHOR = ("-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def version(folder: Path) -> str:
    """The version that a build in this folder gets."""
    return run(sys.executable, "-m", "hatchling", "version", cwd=folder)


def commit(folder: Path) -> None:
    run("git", *AUTHOR, "commit", "-q", "--allow-empty", "-m", "a change", cwd=folder)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """The files that a build reads, outside of any repository."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def clone(sources: Path) -> Path:
    run("git", "init", "-q", cwd=sources)
    run("git", "add", ".", cwd=sources)
    commit(sources)
    return sources


def test_at_a_tag_it_is_the_tag(clone: Path) -> None:
    run("git", "tag", "v3.4.0", cwd=clone)
    assert version(clone) == "3.4.0"


def test_after_a_tag_it_names_the_distance_and_the_commit(clone: Path) -> None:
    run("git", "tag", "v3.4.0", cwd=clone)
    commit(clone)
    commit(clone)
    assert re.fullmatch(r"3\.4\.1\.dev2\+g[0-9a-f]{7,}", version(clone))


def test_a_clone_without_tags_names_the_commit(clone: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\.dev1\+g[0-9a-f]{7,}", version(clone))


def test_a_tarball_has_the_fallback(clone: Path, tmp_path: Path) -> None:
    run("git", "archive", "-o", str(tmp_path / "sources.tar"), "HEAD", cwd=clone)
    with tarfile.open(tmp_path / "sources.tar") as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert version(tmp_path / "unpacked") == FALLBACK


def test_without_a_repository_it_is_the_fallback(sources: Path) -> None:
    assert version(sources) == FALLBACK


def test_this_environment_knows_its_version() -> None:
    assert re.match(r"\d+\.\d+\.\d+", metadata.version("nanochat-platform"))


def test_the_fallback_is_the_last_release() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tags = run("git", "tag", "--list", "v*", "--merged", "HEAD", "--sort=-v:refname", cwd=ROOT).splitlines()
    if not tags:
        pytest.skip("nothing is released yet, or this clone has no tags")
    assert tags[0] == f"v{FALLBACK}", "raise fallback-version in pyproject.toml and the tags in k8s/base/kustomization.yaml"


def test_images_in_kubernetes_carry_the_fallback() -> None:
    images = yaml.safe_load((ROOT / "k8s" / "base" / "kustomization.yaml").read_text(encoding="utf-8"))["images"]
    ours = {image["newTag"] for image in images if image["name"].startswith("nanochat-")}
    assert ours == {FALLBACK}
