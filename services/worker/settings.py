"""The settings of a worker: environment variables with the prefix NANOCHAT_."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from controlplane.timing import Timing

Queue = Literal["gpu", "cpu"]

# A stage of the gpu queue has the whole machine, unless `gpu_slots` splits it. Those of the cpu queue mostly wait for the disk and the network.
SLOTS: dict[Queue, int] = {"gpu": 1, "cpu": 2}


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="NANOCHAT_")

    database_url: str = Field(description="postgresql+psycopg://…")
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="the broker that wakes workers")
    home: Path = Field(default=Path(".nanochat"), description="where attempts write; shared with the inference service")
    worker_id: str | None = Field(default=None, description="stable across restarts; null: <host name>-<queue>")
    gpus: int | None = Field(default=None, ge=0, description="GPUs a stage gets; null: those nvidia-smi lists")
    nodes: int = Field(default=1, ge=1, description="workers whose machines train one stage of the gpu queue together")
    address: str | None = Field(default=None, description="at which the other workers reach this one; null: the host name")
    gpu_slots: int = Field(
        default=1, ge=1, le=64, description="stages of the gpu queue at the same time; each gets an equal share of the GPUs"
    )
    device: Literal["cpu", "mps", "cuda"] | None = Field(default=None, description="null: the stage chooses")

    probe_host: str = Field(default="127.0.0.1", description="address of /health, /ready and /metrics")
    probe_port: int | None = Field(default=None, ge=0, le=65_535, description="their port; null: they are not served")

    lease_ttl_s: float = Field(default=120.0, gt=0)
    lease_grace_s: float = Field(
        default=60.0,
        gt=0,
        le=60,
        description="after the lease, until the API takes the stage; half of it is left to the stage to end",
    )
    sync_every_s: float = Field(default=0.5, gt=0, description="between two reports to the ledger")
    heartbeat_every_s: float = Field(default=5.0, gt=0)
    stop_grace_s: float = Field(default=120.0, ge=0, description="for a stage that was asked to stop to save a checkpoint")
    kill_grace_s: float = Field(default=10.0, ge=0, description="between SIGTERM and SIGKILL, after that")

    @model_validator(mode="after")
    def _split_or_joined(self) -> Settings:
        if self.nodes > 1 and self.gpu_slots > 1:
            raise ValueError("a stage of several machines takes all their GPUs: use gpu_slots = 1 with nodes > 1")
        return self

    def id_for(self, queue: Queue) -> str:
        return self.worker_id or f"{socket.gethostname()}-{queue}"

    @property
    def own_address(self) -> str:
        return self.address or socket.gethostname()

    def slots(self, queue: Queue) -> int:
        """Stages that the worker runs at the same time."""
        return self.gpu_slots if queue == "gpu" else SLOTS[queue]

    def timing(self) -> Timing:
        return Timing(lease_ttl=self.lease_ttl_s, lease_grace=self.lease_grace_s)

    def drain_file(self, queue: Queue) -> Path:
        """While this file exists the worker claims no stage and asks its running ones to stop. A preStop hook may create it."""
        return self._file(queue, ".drain")

    def alive_file(self, queue: Queue) -> Path:
        """Touched with every heartbeat, even if the ledger or the broker does not answer. Liveness probes look at it."""
        return self._file(queue, ".alive")

    def ready_file(self, queue: Queue) -> Path:
        """Touched with every heartbeat that the ledger took; absent while it does not answer and while the worker drains."""
        return self._file(queue, ".ready")

    def _file(self, queue: Queue, suffix: str) -> Path:
        return self.home.absolute() / "workers" / (re.sub(r"[^A-Za-z0-9._-]", "_", self.id_for(queue)) + suffix)

    def output_dir(self, run: str, stage: str, attempt: int) -> Path:
        return self.home.absolute() / "runs" / run / stage / f"attempt-{attempt}"

    @property
    def cache_dir(self) -> Path:
        return self.home.absolute() / "cache"


def child_environment(mark: dict[str, str]) -> dict[str, str]:
    """The environment of a stage's processes: the worker's, without addresses and keys. A stage needs no database, broker or API."""
    private = ("NANOCHAT_DATABASE_URL", "NANOCHAT_REDIS_URL", "NANOCHAT_API_KEY", "NANOCHAT_API_KEY_FILE")
    return {name: value for name, value in os.environ.items() if name not in private} | {"PYTHONUNBUFFERED": "1"} | mark
