"""The thread that samples the GPUs of an attempt and the machine that it runs on, for the charts of its run.

Nothing waits for it. A driver that hangs costs samples, and so does a ledger that is away for longer than KEPT samples take.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections import deque
from collections.abc import Sequence

import psutil
from sqlalchemy.exc import SQLAlchemyError

from controlplane import hardware as stored
from controlplane.claims import Fence
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from controlplane.hardware import MACHINE, Sample
from controlplane.models import Json
from services.worker import hardware, machine
from services.worker.renewal import cause_of
from services.worker.turns import Turns

log = logging.getLogger(__name__)

EVERY_S = 10.0
FIRST_S = 1.0  # over which the activity of the processors is measured before there is a sample
KEPT = 3600  # samples that wait for the ledger: an hour of eight GPUs and their machine


class Sampling:
    """Samples from `start` to `end`, or until the attempt is over. `devices` are its values of CUDA_VISIBLE_DEVICES.

    `worker_id` is that of a worker that has joined the attempt of another one. A share of a GPU (MIG) is not sampled.
    """

    def __init__(self, factory: SessionFactory, fence: Fence, devices: Sequence[str], worker_id: str | None = None):
        self._factory, self._fence, self._devices, self._worker_id = factory, fence, devices, worker_id
        self._gpus: list[int] | None = None if devices else []  # None: not known yet
        self._waiting: deque[Sample] = deque(maxlen=KEPT)
        self._first, self._away = True, False
        self._turns = Turns("sampling of the hardware", self._turn, EVERY_S)

    def start(self) -> None:
        self._turns.start()

    def end(self) -> None:
        """Take no further samples. Does not wait for the thread: a process that hangs in the driver cannot even be killed."""
        self._turns.end()

    def _turn(self) -> bool:
        self._waiting.extend(self._measured())
        try:
            with self._factory.begin() as session:
                stored.store(session, self._fence, list(self._waiting), worker_id=self._worker_id)
        except LedgerError:
            self._turns.end()
        except SQLAlchemyError as err:
            log.log(logging.DEBUG if self._away else logging.WARNING, "samples of the hardware wait: %s", cause_of(err))
            self._away = True
        else:
            self._waiting.clear()
            self._away = False
        return False

    def _measured(self) -> list[Sample]:
        activity = psutil.cpu_percent(FIRST_S if self._first else None)
        self._first = False
        now = time.time()
        host = Sample(now, MACHINE, activity, round(psutil.virtual_memory().used / machine.GIB, 2))
        numbers = self._numbers()
        return [host, *(_sample(now, gpu) for gpu in (machine.gpus() if numbers else []) if gpu["index"] in numbers)]

    def _numbers(self) -> list[int]:
        if self._gpus is None:
            try:
                self._gpus = hardware.numbers(self._devices, timeout_s=machine.PATIENCE_S)
            except (OSError, subprocess.SubprocessError) as err:
                log.warning("nvidia-smi does not tell which GPUs the stage has: %s", err)
                return []
        return self._gpus


def _sample(now: float, gpu: Json) -> Sample:
    return Sample(now, gpu["index"], gpu["activity_pct"], gpu["memory_used_gib"], gpu["power_w"], gpu["temperature_c"])
