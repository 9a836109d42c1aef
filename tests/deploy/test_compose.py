"""docker-compose.yml as Compose reads it: it is valid, it requires its secrets, and it does what its comments say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECRETS = {"POSTGRES_PASSWORD": "aa", "REDIS_PASSWORD": "bb"}


def compose(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    binary = Path(sys.prefix) / "bin" / "docker-compose"
    found = str(binary) if binary.exists() else shutil.which("docker-compose")
    assert found, "docker-compose is missing; it is in the extra `dev`"
    env = {k: v for k, v in os.environ.items() if k not in {*SECRETS, "COMPOSE_PROFILES"}}
    command = [
        found,
        "--project-directory",
        str(ROOT),
        "-f",
        str(ROOT / "docker-compose.yml"),
        "--env-file",
        os.devnull,
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, env={**env, **variables}, check=False)


@pytest.fixture(scope="module", params=["cpu", "gpu"])
def services(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    done = compose("--profile", request.param, "config", **SECRETS)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


@pytest.mark.parametrize("missing", SECRETS)
def test_refuses_to_start_without_a_secret(missing: str) -> None:
    done = compose("config", "--quiet", **{**SECRETS, missing: ""})
    assert done.returncode != 0
    assert f"set {missing} in .env" in done.stderr


def test_example_env_names_every_variable() -> None:
    example = (ROOT / ".env.example").read_text()
    done = compose("config", "--variables", **SECRETS)
    assert done.returncode == 0, done.stderr
    used = {line.split()[0] for line in done.stdout.splitlines()[1:] if line.strip()} - {"TAG"}
    assert used
    assert not {name for name in used if f"{name}=" not in example}


def test_every_service_tells_whether_it_is_well(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name == "migrate":
            continue  # ends by itself; others wait for its exit status
        built = (ROOT / service["build"]["dockerfile"]).read_text() if "build" in service else ""
        assert "HEALTHCHECK" in built or "test" in service.get("healthcheck", {}), name


def test_the_health_of_a_worker_is_its_readiness(services: dict[str, dict[str, Any]]) -> None:
    checks = [s["healthcheck"]["test"] for n, s in services.items() if n.startswith("worker")]
    assert len(checks) == 2
    assert all("'*.ready'" in check[1] for check in checks)


def test_both_queues_have_one_worker_and_every_door_one_service(services: dict[str, dict[str, Any]]) -> None:
    queues = sorted(s["command"][1] for n, s in services.items() if n.startswith("worker"))
    assert queues == ["cpu", "gpu"]
    doors = sorted(port["target"] for s in services.values() for port in s.get("ports", []))
    assert doors == [7860, 8000, 8001]


def test_nothing_is_open_to_the_world(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert all(port["host_ip"] == "127.0.0.1" for port in service.get("ports", [])), name
        assert not service.get("privileged"), name
        if name != "postgres":  # its entry point changes users and makes its folders
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
    assert set(services["postgres"]["networks"]) == set(services["redis"]["networks"]) == {"core"}


def test_services_wait_for_what_they_need(services: dict[str, dict[str, Any]]) -> None:
    for name in ["api", *(n for n in services if n.startswith("worker"))]:
        conditions = {needed: how["condition"] for needed, how in services[name]["depends_on"].items()}
        assert conditions == {
            "postgres": "service_healthy",
            "redis": "service_healthy",
            "migrate": "service_completed_successfully",
        }


def test_only_the_gpu_profile_needs_a_driver(services: dict[str, dict[str, Any]]) -> None:
    with_gpu = {n for n, s in services.items() if s.get("deploy", {}).get("resources", {}).get("reservations")}
    assert with_gpu == ({"worker-train-gpu", "inference-gpu"} if "worker-train-gpu" in services else set())


def test_training_has_time_to_write_a_checkpoint(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        if name.startswith("worker"):
            assert service["stop_grace_period"] == "10m0s"
