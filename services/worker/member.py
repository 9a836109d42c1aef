"""A machine of an attempt that another worker leads: it runs torchrun beside the leader's, as long as the attempt lives."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from controlplane import claims
from controlplane.db import SessionFactory
from controlplane.errors import FenceLost
from controlplane.lifecycle import Reason
from nanochat.contract.contract import SPEC
from nanochat.contract.launch import launch, stage_command
from services.worker import processes
from services.worker.launcher import Invitation
from services.worker.sampling import Sampling
from services.worker.settings import Settings, child_environment
from services.worker.supervisor import mark_of

log = logging.getLogger(__name__)

LOOK_S = 0.5


def join(
    factory: SessionFactory,
    invitation: Invitation,
    settings: Settings,
    *,
    worker_id: str,
    devices: Sequence[str],
    draining: Callable[[], bool],
) -> int | None:
    """Take part in the attempt to its end, with the GPUs that `devices` names, or one process without any.

    Returns torchrun's exit code; None if the attempt had already ended.
    """
    fence = invitation.fence
    with factory.begin() as session:
        if not claims.is_current(session, fence):
            return None
    out = settings.output_dir(fence.run_id, invitation.stage, fence.attempt_no)
    # Not the leader's mark: the end of this machine's part is not the end of the attempt.
    mark = f"{mark_of(fence)}/{worker_id}"
    meet = invitation.rendezvous(settings.own_address, hosts=False)
    command = stage_command(invitation.kind, out / SPEC, max(1, len(devices)), meet)
    process = launch(command, child_environment({processes.MARK: mark}), out / f"stdout.{worker_id}.log")
    log.info("joined as process %d at %s", process.pid, invitation.endpoint)
    sampling = Sampling(factory, fence, devices, worker_id)
    sampling.start()
    told = False
    try:
        while (code := process.poll()) is None:
            try:
                with factory.begin() as session:
                    if not claims.is_current(session, fence):
                        log.info("the attempt has ended; ending this machine's part")
                        return None
                    if draining() and not told:
                        claims.stopping(session, fence, Reason.HOST_DRAIN)  # the leader stops all machines in good order
                        told = True
            except FenceLost:
                continue
            except SQLAlchemyError as err:
                log.debug("the ledger does not answer; the stage continues: %s", err)
                time.sleep(LOOK_S)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
        return code
    finally:
        sampling.end()
        processes.kill_all(mark)
