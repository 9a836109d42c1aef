"""The worker's registration, its heartbeats and the recovery of orphans, in a thread of the parent process."""

from __future__ import annotations

import logging
import socket
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from controlplane import workers
from controlplane.db import SessionFactory
from services.worker import hardware, orphans
from services.worker.settings import SLOTS, Queue, Settings

log = logging.getLogger(__name__)


class Keeper:
    def __init__(self, factory: SessionFactory, queue: Queue, settings: Settings):
        self._factory, self._queue, self._settings = factory, queue, settings
        self._id = settings.id_for(queue)
        self._drain, self._alive = settings.drain_file(queue), settings.alive_file(queue)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def register(self) -> None:
        """Register the worker and end what its predecessor left. Waits until the ledger answers."""
        self._drain.parent.mkdir(parents=True, exist_ok=True)
        self._drain.unlink(missing_ok=True)
        gpus = hardware.gpus(self._settings.gpus) if self._queue == "gpu" else []
        while True:
            self._alive.touch()
            try:
                with self._factory.begin() as session:
                    workers.register(
                        session,
                        self._id,
                        queue=self._queue,
                        hostname=socket.gethostname(),
                        slots=SLOTS[self._queue],
                        gpus=len(gpus),
                        gpu_name=gpus[0] if gpus else "",
                    )
                orphans.recover(self._factory, self._id, self._settings)
                return
            except SQLAlchemyError as err:
                log.warning("waiting for the ledger: %s", err)
                time.sleep(1.0)

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Claim no more stages, and ask the running ones to save a checkpoint and stop."""
        self._drain.touch()

    def stop(self) -> None:
        """End the heartbeats and mark the worker as gone."""
        self._stop.set()
        self._thread.join(timeout=10)
        try:
            with self._factory.begin() as session:
                workers.retire(session, self._id)
        except SQLAlchemyError as err:
            log.warning("the worker could not sign off; the ledger will notice that its heartbeats ended: %s", err)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.heartbeat_every_s):
            self._alive.touch()
            try:
                with self._factory.begin() as session:
                    workers.beat(session, self._id, draining=self._drain.exists())
                orphans.recover(self._factory, self._id, self._settings)
            except SQLAlchemyError as err:
                log.debug("a heartbeat was missed: %s", err)
