"""The worker's registration, its heartbeats and the recovery of orphans, in a thread of the parent process."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from controlplane import workers
from controlplane.db import SessionFactory
from controlplane.lifecycle import Drain
from services.worker import hardware, leftovers, orphans
from services.worker.machine import Machine
from services.worker.settings import Queue, Settings
from services.worker.telemetry import Telemetry

log = logging.getLogger(__name__)


class Keeper:
    """No failed duty ends its thread. If the thread ends all the same, the process drains and ends, to be started again."""

    def __init__(self, factory: SessionFactory, queue: Queue, settings: Settings, telemetry: Telemetry):
        self._telemetry = telemetry
        self._factory, self._queue, self._settings = factory, queue, settings
        self._id = settings.id_for(queue)
        self._drain, self._alive, self._ready = (
            file(queue) for file in (settings.drain_file, settings.alive_file, settings.ready_file)
        )
        self._machine = Machine(settings.home, settings.cache_dir, gpus=queue == "gpu")
        self._stop = threading.Event()
        self._drained = False  # what attempts of its predecessor left and nobody had stored is stored
        self._handing_over = False  # the drain file is there because a user asked for it, not because the worker ends
        self._failing: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def register(self) -> None:
        """Register the worker and end what its predecessor left. Waits until the ledger answers."""
        self._drain.parent.mkdir(parents=True, exist_ok=True)
        self._drain.unlink(missing_ok=True)
        self._ready.unlink(missing_ok=True)
        gpus = hardware.gpus(self._settings.gpus) if self._queue == "gpu" else []
        while True:
            self._duty("liveness file", self._alive.touch)
            try:
                with self._factory.begin() as session:
                    workers.register(
                        session,
                        self._id,
                        queue=self._queue,
                        hostname=socket.gethostname(),
                        slots=self._settings.slots(self._queue),
                        gpus=len(gpus) // self._settings.slots(self._queue),
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
        """Claim no more stages, and ask the running ones to save a checkpoint and stop: the worker ends."""
        self._handing_over = False
        self._duty("drain file", self._drain.touch)

    def stop(self) -> None:
        """End the heartbeats and mark the worker as gone."""
        self._stop.set()
        self._thread.join(timeout=10)
        self._duty("readiness file", lambda: self._ready.unlink(missing_ok=True))
        try:
            with self._factory.begin() as session:
                workers.retire(session, self._id)
        except SQLAlchemyError as err:
            log.warning("the worker could not sign off; the ledger will notice that its heartbeats ended: %s", err)

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._settings.heartbeat_every_s):
                self._go_round()
        finally:
            if not self._stop.is_set():
                log.critical("the keeper's thread ended; the worker drains and ends, so that it is started again")
                os.kill(os.getpid(), signal.SIGTERM)

    def _go_round(self) -> None:
        """Each duty by itself: a state folder that cannot be written must not stop the heartbeats, which say that stages run."""
        self._duty("liveness file", self._alive.touch)
        self._duty("state of the machine", self._machine.measure)
        beats = self._duty("heartbeat", self._beat)
        recovers = self._duty("recovery of orphans", lambda: orphans.recover(self._factory, self._id, self._settings))
        if not self._drained:
            self._drained = self._duty("spools of lost attempts", self._drain_spools)
        self._duty("collection of metrics", lambda: self._telemetry.update(self._factory))
        self._telemetry.tick("keeper")
        if beats and recovers and not self._drain.exists():
            self._duty("readiness file", self._ready.touch)
        else:
            self._duty("readiness file", lambda: self._ready.unlink(missing_ok=True))

    def _drain_spools(self) -> None:
        leftovers.drain_own(self._factory, self._id, self._settings)

    def _beat(self) -> None:
        with self._factory.begin() as session:
            draining = self._drain.exists() and not self._handing_over
            wish = workers.beat(session, self._id, draining=draining, state=self._machine.state)
        if wish is Drain.HAND_OVER:
            self._drain.touch()
            self._handing_over = True
        elif self._handing_over:  # the user took it back
            self._drain.unlink(missing_ok=True)
            self._handing_over = False

    def _duty(self, name: str, do: Callable[[], object]) -> bool:
        """Do it and say whether it worked. A failure is told once, not every few seconds, and so is its end."""
        try:
            do()
        except Exception as err:
            cause = " ".join(str(err.orig if isinstance(err, DBAPIError) else err).split())
            log.log(logging.DEBUG if name in self._failing else logging.WARNING, "%s failed: %s", name, cause or repr(err))
            self._failing.add(name)
            self._telemetry.failures.labels(name).inc()
            return False
        if name in self._failing:
            self._failing.discard(name)
            log.info("%s works again", name)
        return True
