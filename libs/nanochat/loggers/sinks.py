"""The trackers that a run can be copied to, behind one interface. A tracker shows each stage as a run of its own.

None of them needs a network. W&B is offline unless somebody is logged in (`wandb sync` sends it later); Trackio and TensorBoard
write local files.
"""

from __future__ import annotations

import contextvars
import importlib.util
import netrc
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "nanochat"


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run. All its attempts are one run of a tracker; `folder` is the run's."""

    run: str
    stage: str
    folder: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"{self.run}-{self.stage}"

    @property
    def id(self) -> str:
        """The same for every attempt, different for every run on every machine."""
        return uuid.uuid5(uuid.NAMESPACE_URL, f"{uuid.getnode()}/{self.folder.resolve()}/{self.stage}").hex


class Sink(Protocol):
    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Record figures of a step. `at` is the time of the event in unix seconds."""
        ...

    def close(self) -> None: ...


class TensorBoard:
    def __init__(self, stage: StageRun) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary, self._session = event_pb2.Event, summary_pb2.Summary, event_pb2.SessionLog
        self._writer = EventFileWriter(str(stage.folder / "tensorboard" / stage.stage))
        self._first = True

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        if self._first:  # an attempt that resumed repeats steps: TensorBoard forgets those that it had from here on
            start = self._session(status=self._session.START)
            self._writer.add_event(self._event(step=step, wall_time=at, session_log=start))
            self._first = False
        figures = [self._summary.Value(tag=key, simple_value=value) for key, value in values.items()]
        self._writer.add_event(self._event(step=step, wall_time=at, summary=self._summary(value=figures)))

    def close(self) -> None:
        self._writer.close()


class Wandb:
    def __init__(self, stage: StageRun) -> None:
        import wandb

        quiet = wandb.Settings(console="off", silent=True, x_disable_stats=True, init_timeout=60)
        arguments: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "group": stage.run,
            "name": stage.name,
            "id": stage.id,
            "job_type": stage.stage,
            "config": dict(stage.config),
            "dir": str(stage.folder),
            "resume": "allow",
            "reinit": "create_new",  # stages may overlap
            "settings": quiet,
        }
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        try:
            self._run = wandb.init(**{**arguments, "mode": mode})
        except Exception:
            if mode != "online":
                raise
            self._run = wandb.init(**{**arguments, "mode": "offline"})  # no network, or a key that is refused
        # Steps of our own: W&B drops what comes with a step that it has passed, as after a resume.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        self._run.log({**values, "step": step, "time": at})

    def close(self) -> None:
        self._run.finish()


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


class Trackio:
    def __init__(self, stage: StageRun) -> None:
        import trackio

        # Its `init` ends the run that is current, and stages may overlap: each has a context of its own.
        self._run = contextvars.copy_context().run(
            trackio.init,
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{stage.name}-{stage.id[:8]}",
            group=stage.run,
            config=dict(stage.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


SINKS: dict[str, Callable[[StageRun], Sink]] = {"tensorboard": TensorBoard, "trackio": Trackio, "wandb": Wandb}


def missing(names: list[str]) -> list[str]:
    """Those of the trackers whose package is not installed. Each is called as its package is."""
    return [name for name in names if importlib.util.find_spec(name) is None]
