"""The Dockerfiles: what they copy is there and suffices to import the service, what they install is named, nobody runs as root."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rustbpe

ROOT = Path(__file__).parents[2]
SERVICES = ("api", "worker", "inference", "ui")
PROJECT = "nanochat-platform"
# What is imported only when it is first needed.
LATE = {"api": ", kombu.transport.redis", "worker": ", kombu.transport.redis, nanochat.stages.data, nanochat.stages.base_train"}


def instructions(service: str) -> list[str]:
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def last_stage(service: str) -> list[str]:
    lines = instructions(service)
    return lines[max(i for i, line in enumerate(lines) if line.startswith("FROM ")) :]


def copied(lines: list[str]) -> list[tuple[str, str]]:
    """(source, destination) of every COPY from the build context."""
    words = [shlex.split(line)[1:] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    return [(source, line[-1]) for line in words for source in line[:-1]]


@pytest.mark.parametrize("service", SERVICES)
def test_runs_as_nobody_special_and_is_watched(service: str) -> None:
    lines = last_stage(service)
    assert "USER 10001:10001" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert f'ENTRYPOINT ["python", "-m", "services.{service}"]' in lines


@pytest.mark.parametrize("service", SERVICES)
def test_installs_its_own_extra_by_the_lock(service: str) -> None:
    text = " ".join(instructions(service))
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named = re.findall(r"--extra (\S+)", text)
    assert service in named
    assert set(named) <= extras
    assert "--constraint requirements.lock" in text
    for tool in re.findall(r"sed -n '/\^(\w+)==", text):
        assert f"\n{tool}==" in "\n" + (ROOT / "requirements.lock").read_text(), f"{tool} is not in requirements.lock"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_reaches_the_build(service: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source, _ in copied(instructions(service)):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is kept out by .dockerignore"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_and_installed_suffices(service: str, tmp_path: Path) -> None:
    for source, destination in copied(last_stage(service)):
        target = tmp_path / destination.lstrip("/") / ("" if (ROOT / source).is_dir() else Path(source).name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(ROOT / source)
    packages = tmp_path / "site-packages"
    packages.mkdir()
    if "/opt/maturin" in " ".join(instructions(service)):  # built from this checkout, and here perhaps installed in place
        (packages / "rustbpe").symlink_to(Path(rustbpe.__file__).parent)
    for name in installed(re.findall(r"--extra (\S+)", " ".join(instructions(service)))):
        for entry in {
            file.parts[0] for file in metadata.distribution(name).files or [] if file.parts[0] not in ("..", "__pycache__")
        }:
            link = packages / entry
            if not link.is_symlink():
                link.symlink_to(Path(sysconfig.get_path("purelib")) / entry)
    app = tmp_path / "app"
    # Without `site`, so that neither this checkout nor the other packages of this environment are in reach.
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import services.{service}.__main__{LATE.get(service, '')}"],
        cwd=app,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(app), str(app / "libs"), str(packages)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def installed(extras: list[str]) -> set[str]:
    """Names of every package that these extras of the project bring along, as this environment resolved them."""
    found: set[str] = set()
    waiting = [Requirement(f"{PROJECT}[{','.join(extras)}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        if wanted.name == PROJECT:  # as it is written now, not as it was when it was installed
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extra_lines = [line for extra in wanted.extras for line in project["optional-dependencies"][extra]]
            waiting += map(Requirement, [*project["dependencies"], *extra_lines])
            continue
        found.add(key[0])
        for line in metadata.requires(wanted.name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ["", *wanted.extras]):
                waiting.append(needed)
    return found
