"""The Dockerfiles: what they copy is there, what they install is named in the lock, nobody runs as root."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.deploy.image import ROOT, SERVICES, Dockerfile, copied


@pytest.mark.parametrize("service", SERVICES)
def test_runs_as_nobody_special_and_is_watched(service: str) -> None:
    lines = Dockerfile(service).last_stage
    assert "USER 10001:10001" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
    assert f'ENTRYPOINT ["python", "-m", "services.{service}"]' in lines


@pytest.mark.parametrize("service", SERVICES)
def test_installs_its_own_extra_by_the_lock(service: str) -> None:
    file = Dockerfile(service)
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert service in file.extras
    assert set(file.extras) <= extras
    assert "--constraint requirements.lock" in file.text
    for tool in re.findall(r"sed -n '/\^(\w+)==", file.text):
        assert f"\n{tool}==" in "\n" + (ROOT / "requirements.lock").read_text(), f"{tool} is not in requirements.lock"


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_reaches_the_build(service: str) -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source, _ in copied(Dockerfile(service).lines):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is kept out by .dockerignore"
