"""The tasks: claim the stage whose turn it is in the queue of the message and supervise it, or join a stage that another worker leads.

If no stage of the queue can be claimed, or the stage has ended, nothing happens.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from controlplane import db, queueing
from controlplane.errors import NotFound
from services import tracing
from services.worker import hardware, member, processes
from services.worker.app import JOIN, TASK
from services.worker.launcher import Invitation, Launcher, ManyMachines, OneMachine
from services.worker.settings import Queue, Settings
from services.worker.supervisor import Supervisor, log_ids

log = logging.getLogger(__name__)


def add_task(app: Celery, settings: Settings, queue: Queue) -> None:
    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def run_stage(stage_id: int) -> None:
        _run_stage(stage_id, settings, queue, _launcher(app, settings, queue))

    @app.task(name=JOIN)  # type: ignore[untyped-decorator]
    def join_stage(message: dict[str, Any]) -> None:
        _join_stage(Invitation.of(message), settings, queue)


def _launcher(app: Celery, settings: Settings, queue: Queue) -> Launcher:
    if queue != "gpu" or settings.nodes == 1:
        return OneMachine()

    def call(invitation: Invitation) -> None:
        try:
            app.send_task(JOIN, args=[invitation.as_message()], queue=queue, retry=False)
        except OperationalError as err:
            raise OSError(f"the broker does not answer, so no other worker can be called: {err}") from err

    return ManyMachines(settings, call)


def _run_stage(stage_id: int, settings: Settings, queue: Queue, launcher: Launcher) -> None:
    """Runs in a separate process, forked from the worker for this stage."""
    draining = _draining(settings, queue)
    if draining():
        return
    engine = db.make_engine(settings.database_url)
    factory = db.sessions(engine)
    traces = tracing.start("worker")
    try:
        claim = queueing.claim_first(
            factory, stage_id, settings.id_for(queue), process=processes.identity(), timing=settings.timing()
        )
        if claim is None:
            log.info("called for stage %d, but no stage of the queue can be claimed now", stage_id)
            return
        devices = _devices(settings, queue, claim.slot)
        ranks = max(1, len(devices))
        with bound_contextvars(**log_ids(claim.fence, claim.stage)):  # the supervisor's threads take the ids with them
            made = Supervisor(factory, claim, settings, world_size=ranks, devices=devices, draining=draining, launcher=launcher)
            with traces.of_run(
                "attempt",
                claim.fence.run_id,
                stage=claim.stage,
                attempt=claim.fence.attempt_no,
                worker=settings.id_for(queue),
            ) as span:
                span.note(stage_status=made.run() or "another attempt's")
    except NotFound:
        log.warning("called for stage %d, which this ledger does not have", stage_id)
    except SQLAlchemyError as err:
        log.warning("the ledger does not answer, so stage %d waits for the next call: %s", stage_id, err)
    finally:
        traces.close()
        engine.dispose()


def _join_stage(invitation: Invitation, settings: Settings, queue: Queue) -> None:
    """Runs in a separate process, as `_run_stage` does."""
    draining = _draining(settings, queue)
    if draining():
        return
    engine = db.make_engine(settings.database_url)
    try:
        with bound_contextvars(**log_ids(invitation.fence, invitation.stage)):
            code = member.join(
                db.sessions(engine),
                invitation,
                settings,
                worker_id=settings.id_for(queue),
                devices=_devices(settings, queue),
                draining=draining,
            )
            log.info("this machine's part ended: %s", "the attempt was over" if code is None else f"exit code {code}")
    except (OSError, SQLAlchemyError) as err:
        log.warning("could not join the stage; its leader tries again: %s", err)
    finally:
        engine.dispose()


def _devices(settings: Settings, queue: Queue, slot: int = 0) -> list[str]:
    return hardware.devices(slot, settings.gpu_slots, settings.gpus) if queue == "gpu" else []


def _draining(settings: Settings, queue: Queue) -> Callable[[], bool]:
    """Handles SIGTERM from here on. Whether this worker shuts down."""
    terminated = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        terminated.set()

    signal.signal(signal.SIGTERM, on_sigterm)
    processes.adopt_orphans()
    drain = settings.drain_file(queue)

    def draining() -> bool:
        return terminated.is_set() or drain.exists()

    return draining
