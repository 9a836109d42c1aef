"""Log lines of the four services as an operator reads them: text or JSON, with ids, without secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import httpx
import psycopg
import pytest
import yaml
from sqlalchemy.engine import make_url

from controlplane.lifecycle import StageStatus
from services import logs
from services.standalone.ports import free_port
from services.standalone.postgres import Postgres
from tests.waiting import until
from tests.worker.platform import Platform
from tests.worker.platform import platform as make_platform

ROOT = Path(__file__).parents[2]
STYLES = ("text", "json")
MOMENT = r"\d{4}-\d\d-\d\dT[\d:.]+Z"
TEXT = re.compile(MOMENT + r" \[(?:info|warning|error) *\] .+ \[[\w.]+\](?: \w+=\S+)*\n", re.DOTALL)
NOTICE = "\nworker: Warm shutdown (MainProcess)\n"  # Celery writes it to standard output, past every logger
NOWHERE = {"data.source": {"kind": "folder", "path": "/nowhere"}}

# What each service logs soon after its start. Nothing listens at port 1.
AWAY = {"NANOCHAT_API_URL": "http://127.0.0.1:1", "NANOCHAT_INFERENCE_URL": "http://127.0.0.1:1", "NANOCHAT_API_KEY": "key"}
SERVICES = {
    "api": ({}, "services.api", "API key: "),
    "inference": (AWAY, "services.inference.registry", "http://127.0.0.1:1"),
    "ui": (AWAY, "uvicorn.error", "Uvicorn running on"),
}


def lines_of(style: str, log: str) -> list[str]:
    """JSON objects stand on one line each; a text may have several, as a traceback has."""
    log = log.replace(NOTICE, "")
    if style == "json":
        return log.splitlines()
    before, *lines = re.split(f"^(?={MOMENT})", log, flags=re.MULTILINE)
    assert before == ""
    return lines


def line_of(style: str, log: str, logger: str, words: str) -> bool:
    """Whether the log has a line of this logger with these words. Every line of the log must have the style."""
    found = False
    for line in lines_of(style, log):
        if style == "json":
            assert line.startswith("{"), f"not JSON: {line}"
            told = json.loads(line)
            assert {"event", "level", "logger", "timestamp"} <= set(told), line
            found |= told["logger"] == logger and words in told["event"]
        else:
            assert TEXT.fullmatch(line), line
            found |= f"[{logger}]" in line and words in line
    return found


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_logs_in_the_format_that_is_set(
    service: str, style: str, database_url: str, redis_url: str, tmp_path: Path
) -> None:
    settings, logger, words = SERVICES[service]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NANOCHAT_")}
    own = {"NANOCHAT_HOME": str(tmp_path), "NANOCHAT_PORT": str(free_port()), "NANOCHAT_LOG": style, **settings}
    ledger = {"NANOCHAT_DATABASE_URL": database_url, "NANOCHAT_REDIS_URL": redis_url} if service == "api" else {}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"services.{service}"],
            cwd=ROOT,
            env={**clean, **own, **ledger},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: words in log.read_text() or process.poll() is not None, f"the line of {service}", 240)
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()
    assert line_of(style, log.read_text(), logger, words), log.read_text()


def test_the_api_names_the_run_of_a_request(postgres: Postgres, database_url: str, redis_url: str, tmp_path: Path) -> None:
    port, log, run = free_port(), tmp_path / "log", "r_0123456789abcdef"
    own = {"NANOCHAT_HOME": str(tmp_path), "NANOCHAT_PORT": str(port), "NANOCHAT_LOG": "json"}
    ledger = {"NANOCHAT_DATABASE_URL": database_url, "NANOCHAT_REDIS_URL": redis_url}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.api"], cwd=ROOT, env={**os.environ, **own, **ledger}, stdout=output, stderr=output
        )
    try:
        until(lambda: "Uvicorn running on" in log.read_text() or process.poll() is not None, "the API", 120)
        name = make_url(database_url).database
        with psycopg.connect(postgres.dsn, autocommit=True) as session:  # nobody may connect to this database any more
            session.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")  # type: ignore[call-overload]
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/runs/{run}", headers={"Authorization": "Bearer x"}, timeout=60)
        assert answer.status_code == 503
        told = [json.loads(line) for line in log.read_text().splitlines()]
        assert [t["run"] for t in told if t["logger"] == "services.api.problems"] == [run]
    finally:
        process.kill()
        process.wait()


def test_compose_passes_the_format_to_every_service() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    built = {name: service["environment"] for name, service in services.items() if "build" in service}
    assert {"api", "worker-cpu", "inference", "ui"} <= set(built)
    for name, environment in built.items():
        assert environment["NANOCHAT_LOG"] == "${NANOCHAT_LOG:-text}", name


@pytest.mark.parametrize("style", STYLES)
def test_a_worker_names_run_stage_and_attempt(style: str, database_url: str, redis_url: str, home: Path) -> None:
    def lines(logger: str) -> list[dict[str, Any]]:
        log = platform.worker_log("cpu")
        return [told for told in map(json.loads, lines_of("json", log)) if told["logger"] == logger]

    for platform in make_platform(database_url, redis_url, home):
        platform.start_loops()
        platform.start_worker("cpu", NANOCHAT_LOG=style)
        run = _failed_run(platform)
        assert platform.stop_worker("cpu") == 0
        log = platform.worker_log("cpu")
        assert line_of(style, log, "services.worker.supervisor", "the stage runs as process")
        assert line_of(style, log, "services.worker.supervisor", "the attempt ended; the stage is FAILED")
        assert line_of(style, log, "celery.apps.worker", "ready.")
        if style == "json":
            told = lines("services.worker.supervisor")
            assert {(t["run"], t["stage"], t["attempt"]) for t in told} == {(run, "data", 1)}
            assert not any("run" in t for t in lines("celery.apps.worker"))
        else:
            assert len(re.findall(rf"\[services\.worker\.supervisor\] attempt=1 run={run} stage=data$", log, re.MULTILINE)) == 2
        for secret in (make_url(database_url).password, redis_url.split(":")[2].partition("@")[0]):
            assert secret
            assert secret not in log


def _failed_run(platform: Platform) -> str:
    run = platform.submit(**NOWHERE)
    until(lambda: platform.stage(run, "data").status is StageStatus.FAILED, "the stage to fail", 120)
    return run


@pytest.mark.parametrize("service", ["api", "worker", "inference", "ui"])
def test_an_unknown_format_is_refused_by_name(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"services.{service}", *(["--queue", "cpu"] if service == "worker" else [])],
        cwd=ROOT,
        env={**os.environ, "NANOCHAT_LOG": "xml"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (2, 64)
    assert "Traceback" not in done.stderr
    assert re.search(r"log\b.*'text' or 'json'", done.stderr, re.IGNORECASE | re.DOTALL), done.stderr


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot reach redis://:hunter2@127.0.0.1:6379/0", "cannot reach redis://:***@127.0.0.1:6379/0"),
        ("postgresql+psycopg://nanochat:hunter2@h:5432/nanochat", "postgresql+psycopg://nanochat:***@h:5432/nanochat"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("redis://u:p@ss@host:6379", "redis://u:***@host:6379"),
        ("key nc_hunter2hunter2hunter2hunter2hunter2hunter2hunt", "key nc_***"),
        ("no secret at http://127.0.0.1:8000/v1 or me@example.org", "no secret at http://127.0.0.1:8000/v1 or me@example.org"),
    ],
)
def test_secrets_are_hidden_in_messages_and_tracebacks(style: Literal["text", "json"], text: str, shown: str) -> None:
    def line(log: Callable[[logging.Logger], None]) -> str:
        told: list[str] = []

        class Kept(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                told.append(self.format(record))

        logger, handler = logging.Logger("test"), Kept()
        handler.setFormatter(logs.formatter(style))
        logger.addHandler(handler)
        log(logger)
        return told[0]

    def fail(logger: logging.Logger) -> None:
        password = "hunter2-in-a-variable"
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it failed with a password of %d letters", len(password))

    for told in (line(lambda logger: logger.error("%s", text)), line(fail)):
        assert shown in told
        assert "hunter2" not in told


def test_hiding_a_secret_leaves_json_valid() -> None:
    record = logging.LogRecord("test", logging.INFO, __file__, 1, 'sent {"Authorization": "Bearer abc123"} to it', (), None)
    line = json.loads(logs.formatter("json").format(record))
    assert line["event"] == 'sent {"Authorization": "Bearer ***"} to it'
