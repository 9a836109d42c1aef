"""The worker's keeper, on a real ledger: no fault of the state folder or of the ledger ends its heartbeats for good."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from controlplane import workers
from controlplane.db import SessionFactory
from controlplane.lifecycle import Drain
from controlplane.models import Worker
from services.worker.keeper import Keeper
from services.worker.settings import Settings
from services.worker.telemetry import Telemetry
from tests.waiting import until


@pytest.fixture
def settings(database_url: str, home: Path) -> Settings:
    return Settings(database_url=database_url, home=home, worker_id="w", heartbeat_every_s=0.05)


@pytest.fixture
def keeper(sessions: SessionFactory, settings: Settings) -> Iterator[Keeper]:
    made = Keeper(sessions, "cpu", settings, Telemetry(settings, "w"))
    made.register()
    made.start()
    yield made
    made.stop()


def beat(sessions: SessionFactory) -> datetime:
    with sessions.begin() as s:
        return s.get_one(Worker, "w").heartbeat_at


def test_a_state_folder_that_cannot_be_written_stops_no_heartbeat(
    keeper: Keeper, sessions: SessionFactory, settings: Settings
) -> None:
    ready = settings.ready_file("cpu")
    until(ready.exists, "the worker to be ready")
    aside = ready.parent.with_name("aside")
    ready.parent.rename(aside)
    ready.parent.write_text("no folder")
    seen = beat(sessions)
    until(lambda: beat(sessions) > seen, "a heartbeat without a state folder")
    ready.parent.unlink()
    aside.rename(ready.parent)
    ready.unlink()
    until(ready.exists, "the worker to be ready again")


def test_a_worker_is_not_ready_while_the_ledger_does_not_answer(
    keeper: Keeper, sessions: SessionFactory, settings: Settings
) -> None:
    ready, alive = settings.ready_file("cpu"), settings.alive_file("cpu")
    until(ready.exists, "the worker to be ready")
    with sessions.begin() as s:
        s.execute(text("ALTER TABLE worker RENAME TO elsewhere"))
    until(lambda: not ready.exists(), "the worker to be unready")
    alive.unlink()
    until(alive.exists, "a sign of life without a ledger")
    with sessions.begin() as s:
        s.execute(text("ALTER TABLE elsewhere RENAME TO worker"))
    until(ready.exists, "the worker to be ready again")


def test_a_draining_worker_is_not_ready(keeper: Keeper, settings: Settings) -> None:
    until(settings.ready_file("cpu").exists, "the worker to be ready")
    keeper.drain()
    until(lambda: not settings.ready_file("cpu").exists(), "the worker to be unready")


def test_a_user_lets_a_worker_hand_over_and_takes_it_back(keeper: Keeper, sessions: SessionFactory, settings: Settings) -> None:
    drain, ready = settings.drain_file("cpu"), settings.ready_file("cpu")
    until(ready.exists, "the worker to be ready")
    with sessions.begin() as s:
        workers.drain(s, "w", Drain.FINISH)
    seen = beat(sessions)
    until(lambda: beat(sessions) > seen, "a heartbeat")
    assert not drain.exists()  # its stages are not asked to stop
    with sessions.begin() as s:
        workers.drain(s, "w", Drain.HAND_OVER)
    until(drain.exists, "the request to stop")
    until(lambda: not ready.exists(), "the worker not to be ready")
    with sessions.begin() as s:
        workers.drain(s, "w", None)
    until(lambda: not drain.exists(), "the end of the request")
    until(ready.exists, "the worker to be ready again")
    with sessions.begin() as s:
        assert not s.get_one(Worker, "w").draining


def test_the_heartbeats_tell_how_full_the_disks_are(keeper: Keeper, sessions: SessionFactory, settings: Settings) -> None:
    def state() -> dict[str, Any] | None:
        with sessions.begin() as s:
            return s.get_one(Worker, "w").state

    found = until(state, "a heartbeat with the state of the machine")
    assert found["gpus"] == []
    home, cache = found["disks"]
    assert (home["what"], home["path"], cache["what"]) == ("home", str(settings.home.absolute()), "cache")
    assert 0 < home["free_gib"] <= home["total_gib"]
