"""The platform without the HTTP API: real worker processes, the control loops in a thread, real Postgres and Valkey."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from kombu.exceptions import OperationalError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from controlplane import db, dispatcher, reaper, runs, views
from controlplane.lifecycle import RunStatus
from controlplane.models import Run, Worker
from controlplane.schemas import RunView, StageView
from controlplane.timing import Timing
from nanochat.config import recipe
from services.worker.app import TASK, make_app
from services.worker.settings import Queue, Settings
from tests.waiting import until

FAST = Timing(backoff=(0.2,))


class Platform:
    def __init__(self, database_url: str, redis_url: str, home: Path):
        self.env = {
            "NANOCHAT_DATABASE_URL": database_url,
            "NANOCHAT_REDIS_URL": redis_url,
            "NANOCHAT_HOME": str(home),
            "NANOCHAT_SYNC_EVERY_S": "0.1",
            "NANOCHAT_HEARTBEAT_EVERY_S": "0.5",
            "NANOCHAT_GPUS": "0",
            "OMP_NUM_THREADS": "1",
        }
        self.home = home
        self.settings = Settings(database_url=database_url, redis_url=redis_url, home=home)
        self.app = make_app(self.settings, "cpu")
        self.engine = db.make_engine(database_url)
        self.factory = db.sessions(self.engine)
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._stop = threading.Event()
        self._loop = threading.Thread(target=self._go_round, daemon=True)

    # -- processes --

    def start_worker(self, queue: Queue, name: str | None = None, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready to be called. A queue with several workers needs their names."""
        env |= {"NANOCHAT_WORKER_ID": name} if name else {}
        log = self.home / f"worker-{name or queue}.log"
        with log.open("ab") as output:
            before = log.stat().st_size
            process = subprocess.Popen(
                [sys.executable, "-m", "services.worker", "--queue", queue],
                env={**os.environ, **self.env, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.workers[name or queue] = process
        until(lambda: b" ready." in log.read_bytes()[before:] or process.poll() is not None, "the worker", 60)
        assert process.poll() is None, log.read_text()
        return process

    def kill_worker(self, name: str) -> None:
        """kill -9 the worker of a queue, or with a name, and its pool at once, as when a container is killed."""
        process = self.workers.pop(name)
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()

    def stop_worker(self, queue: Queue, seconds: float = 60.0) -> int:
        """Send SIGTERM, on which the worker drains, and wait for its end."""
        process = self.workers.pop(queue)
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds)

    def start_loops(self) -> None:
        self._loop.start()

    def close(self) -> None:
        self._stop.set()
        if self._loop.is_alive():
            self._loop.join()
        for name in list(self.workers):
            self.kill_worker(name)
        self.app.close()
        self.engine.dispose()

    def publish(self, stage_id: int, queue: str) -> None:
        self.app.send_task(TASK, args=[stage_id], queue=queue, retry=False)

    def _go_round(self) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(SQLAlchemyError, OperationalError):
                dispatcher.tick(self.factory, self.publish, timing=FAST)
                reaper.tick(self.factory)

    # -- what a user does --

    def submit(self, base: str | dict[str, Any] = "tiny", **overrides: Any) -> str:
        with self.factory.begin() as s:
            return runs.submit(s, recipe.resolve(base, overrides)).run.id

    def cancel(self, run_id: str) -> None:
        with self.factory.begin() as s:
            runs.cancel(s, run_id)

    def run(self, run_id: str) -> RunView:
        with self.factory.begin() as s:
            return views.run_view(s, run_id)

    def stage(self, run_id: str, name: str) -> StageView:
        return next(stage for stage in self.run(run_id).stages if stage.name == name)

    def status(self, run_id: str) -> RunStatus:
        with self.factory.begin() as s:
            return s.get_one(Run, run_id).status

    def registered(self, worker_id: str) -> Worker | None:
        with self.factory.begin() as s:
            return s.scalars(select(Worker).where(Worker.id == worker_id)).first()

    def output_dir(self, run_id: str, stage: str, attempt: int = 1) -> Path:
        return self.settings.output_dir(run_id, stage, attempt)

    def worker_log(self, queue: Queue) -> str:
        return (self.home / f"worker-{queue}.log").read_text()


def platform(database_url: str, redis_url: str, home: Path) -> Iterator[Platform]:
    made = Platform(database_url, redis_url, home)
    try:
        yield made
    finally:
        made.close()
