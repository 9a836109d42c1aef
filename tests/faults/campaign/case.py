"""One run under one fault: how a fault reaches the run's processes and files, and how its moment is chosen."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import psutil
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from controlplane import runs
from controlplane.lifecycle import RunStatus
from controlplane.models import Attempt, Run, Stage
from nanochat.config import recipe
from nanochat.contract.contract import EVENTS
from services.worker.app import TASK, make_app
from services.worker.processes import MARK
from services.worker.settings import Settings
from tests.faults.campaign.stack import PATIENCE_S, Service, Stack
from tests.faults.campaign.trainer import Plan

STAGE = "base_train"
TAIL = 4096  # bytes of the spool in which its last step is found


@dataclass
class Case:
    stack: Stack
    plan: Plan
    random: Random
    run_id: str = ""
    stage_id: int = 0
    notes: list[str] = field(default_factory=list)
    standstill: float = 0.0  # the longest time in seconds without a step further than all before
    _furthest: int = 0
    _moved_at: float = 0.0

    def submit(self) -> None:
        """A run whose graph is one stage, the trainer."""
        with self.stack.factory.begin() as s:
            run = runs.submit(s, recipe.resolve("tiny", {})).run
            s.execute(delete(Stage).where(Stage.run_id == run.id, Stage.name != STAGE))
            s.execute(
                update(Stage).where(Stage.run_id == run.id).values(inputs={}, outputs=["model"], config=asdict(self.plan))
            )
            self.run_id, self.stage_id = run.id, s.scalars(select(Stage.id).where(Stage.run_id == run.id)).one()

    # -- the run as it is --

    @property
    def stage_dir(self) -> Path:
        return self.stack.home / "runs" / self.run_id / STAGE

    def attempts(self) -> list[Attempt]:
        with self.stack.factory.begin() as s:
            return list(s.scalars(select(Attempt).where(Attempt.stage_id == self.stage_id).order_by(Attempt.no)))

    def out(self) -> Path:
        """The folder of the newest attempt."""
        return max(self.stage_dir.glob("attempt-*"), key=lambda path: int(path.name.split("-")[1]))

    def status(self) -> RunStatus | None:
        """None while the database does not answer."""
        try:
            with self.stack.factory.begin() as s:
                return s.get_one(Run, self.run_id).status
        except SQLAlchemyError:
            return None

    def step(self) -> int:
        """The last step that the newest attempt has written down."""
        try:
            with (self.out() / EVENTS).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
                lines = file.read().splitlines()
        except (ValueError, OSError):
            return 0
        for line in reversed(lines):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if (event := json.loads(line))["kind"] == "metric":
                    return int(event["step"])
        return 0

    def saved(self) -> list[Path]:
        """Complete checkpoints of the newest attempt, the newest last."""
        return sorted(path.parent for path in self.out().glob("checkpoints/step_*/manifest.json"))

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                mark = process.environ().get(MARK, "")
                if mark.startswith(self.run_id + "/") and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def process(self, kind: str) -> psutil.Process:
        """`rank 0`, `rank 1`, `torchrun`, or its `supervisor`."""
        marked = self.processes()
        torchrun = next(p for p in marked if p.ppid() not in {other.pid for other in marked})
        if kind == "torchrun":
            return torchrun
        if kind == "supervisor":
            return psutil.Process(torchrun.ppid())
        rank = kind.removeprefix("rank ")
        return next(p for p in torchrun.children() if p.environ().get("RANK") == rank)

    def service(self) -> Service:
        """The worker that holds the run."""
        return self.stack.services[self.attempts()[-1].worker_id]

    def watch(self) -> None:
        """Called again and again while the run lasts."""
        step, now = self.step(), time.monotonic()
        if step > self._furthest:
            self._furthest, self._moved_at = step, now
        elif 0 < self._furthest < self.plan.steps:
            self.standstill = max(self.standstill, now - self._moved_at)

    # -- what faults are made of --

    def reach(self, lowest: int = 5, highest: int = 90) -> int:
        """Wait until training has come to a random step."""
        step = self.random.randint(lowest, highest)
        self.until(lambda: self.step() >= step, f"step {step}")
        return step

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
        self.stack.wait(condition, what, seconds)

    def for_a_while(self, longest: float = 2.0) -> None:
        self.stack.pause(self.random.uniform(0.1, longest))

    def beyond_the_lease(self) -> None:
        """A lease of 4 s, 1 s of grace, and the reaper's period."""
        self.stack.pause(self.random.uniform(7.0, 9.0))

    def call(self, times: int) -> None:
        """Send wake-up calls for the stage."""
        app = make_app(Settings(database_url=self.stack.postgres.url, redis_url=self.stack.valkey.url), "gpu")
        for _ in range(times):
            app.send_task(TASK, args=[self.stage_id], queue="gpu", retry=False)
        app.close()

    def retry(self, seconds: float = 60.0) -> None:
        """What a person does once the cause is gone: resume a paused run, retry a failed one. Nothing when neither."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (status := self.status()) not in (RunStatus.SUCCEEDED, RunStatus.CANCELLED):
            if status in (RunStatus.PAUSED, RunStatus.FAILED):
                with self.stack.factory.begin() as s:
                    (runs.resume if status is RunStatus.PAUSED else runs.retry)(s, self.run_id)
                self.notes.append("needed `resume`" if status is RunStatus.PAUSED else "needed `retry`")
                return
            self.stack.pause(0.1)


def send(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
