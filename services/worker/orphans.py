"""Orphans: attempts whose supervisor was killed. They are ended at once, not when their lease expires.

Their processes die with the supervisor (`nanochat.contract.launch`), but what they wrote is on disk: the rest of the spool is
stored first, so that the last checkpoint is known, and a stage that had finished counts as finished.
"""

from __future__ import annotations

import logging

from structlog.contextvars import bound_contextvars

from controlplane import claims, workers
from controlplane.db import SessionFactory
from controlplane.errors import FenceLost
from controlplane.workers import Held
from services.worker import processes
from services.worker.leftovers import record_begin
from services.worker.relay import Relay
from services.worker.settings import Settings
from services.worker.supervisor import log_ids, mark_of
from services.worker.verdict import judge

log = logging.getLogger(__name__)


def recover(factory: SessionFactory, worker_id: str, settings: Settings) -> int:
    """End the attempts of this worker that have no supervisor any more. Returns how many there were."""
    with factory.begin() as session:
        held = workers.held(session, worker_id)
    recovered = 0
    for attempt in held:
        if _is_orphan(attempt):
            with bound_contextvars(**log_ids(attempt.fence, attempt.stage)):
                recovered += _recover(factory, attempt, settings)
    return recovered


def _is_orphan(attempt: Held) -> bool:
    # Processes on another machine of the same worker name cannot be seen from here. The lease decides about those.
    return processes.is_here(attempt.process) and not processes.is_alive(attempt.process)


def _recover(factory: SessionFactory, attempt: Held, settings: Settings) -> bool:
    fence = attempt.fence
    if not processes.kill_all(mark_of(fence)):
        log.error("processes of the attempt do not die; the attempt stays until its lease runs out")
        return False
    out = settings.output_dir(fence.run_id, attempt.stage, fence.attempt_no)
    try:
        record_begin(factory, fence, out)
        Relay(factory, fence, out, settings.sync_every_s).flush()
        verdict = judge(out, attempt.outputs, None, attempt.stop_reason)
        with factory.begin() as session:
            claims.finish(session, fence, verdict.reason, message=verdict.message, timing=settings.timing())
    except FenceLost:
        return False
    log.warning("the attempt had lost its supervisor: %s", verdict.reason)
    return True
