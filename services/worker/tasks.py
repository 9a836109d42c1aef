"""The only task: claim the stage that the message names and supervise it. If another worker has claimed it, nothing happens."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from controlplane import claims, db
from controlplane.errors import NotFound
from services.worker import hardware, processes
from services.worker.app import TASK
from services.worker.settings import Queue, Settings
from services.worker.supervisor import Supervisor, log_ids

log = logging.getLogger(__name__)


def add_task(app: Celery, settings: Settings, queue: Queue) -> None:
    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def run_stage(stage_id: int) -> None:
        _run_stage(stage_id, settings, queue)


def _run_stage(stage_id: int, settings: Settings, queue: Queue) -> None:
    """Runs in a separate process, forked from the worker for this stage."""
    terminated = threading.Event()

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        terminated.set()

    signal.signal(signal.SIGTERM, on_sigterm)
    processes.adopt_orphans()
    drain = settings.drain_file(queue)

    def draining() -> bool:
        return terminated.is_set() or drain.exists()

    if draining():
        return
    engine = db.make_engine(settings.database_url)
    factory = db.sessions(engine)
    try:
        with factory.begin() as session:
            claim = claims.claim(
                session, stage_id, settings.id_for(queue), process=processes.identity(), timing=settings.timing()
            )
        if claim is None:
            log.info("stage %d could not be claimed: another worker has it, or it is no longer wanted", stage_id)
            return
        world_size = len(hardware.gpus(settings.gpus)) if queue == "gpu" else 0
        with bound_contextvars(**log_ids(claim.fence, claim.stage)):
            Supervisor(factory, claim, settings, world_size=max(1, world_size), draining=draining).run()
    except NotFound:
        log.warning("called for stage %d, which this ledger does not have", stage_id)
    except SQLAlchemyError as err:
        log.warning("the ledger does not answer, so stage %d waits for the next call: %s", stage_id, err)
    finally:
        engine.dispose()
