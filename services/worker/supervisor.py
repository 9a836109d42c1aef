"""One attempt from claim to verdict: write stage.json, launch torchrun, stop it on request, and judge what it left.

A healthy stage survives any outage of the ledger and the broker. Imports no torch.
"""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from controlplane import claims
from controlplane.claims import Claim, Fence, LateFence, SavedCheckpoint
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from controlplane.lifecycle import Reason, StageStatus
from nanochat.contract import lease
from nanochat.contract.contract import BALLAST, SPEC, STOP, StageSpec, write_json
from nanochat.contract.launch import launch
from nanochat.contract.lease import Lease, LeaseFile
from services.worker import leftovers, processes
from services.worker.launcher import Launcher, OneMachine
from services.worker.relay import Relay
from services.worker.renewal import Renewal
from services.worker.resume import furthest_intact, warn_of_a_start_from_zero
from services.worker.sampling import Sampling
from services.worker.settings import Settings, child_environment
from services.worker.storing import STDOUT
from services.worker.verdict import Verdict, judge, not_launched

log = logging.getLogger(__name__)

POLL_S = 0.1
SHOW_S = 1.0  # between two writes of the lease file
BALLAST_BYTES = 32 * 1024
GIVE_UP_S = 30.0  # how long a draining worker tries to report an end; after that its next start reports it


def mark_of(fence: Fence) -> str:
    """The value of the environment variable that marks the attempt's processes."""
    return f"{fence.run_id}/{fence.stage_id}/{fence.attempt_no}"


def log_ids(fence: Fence, stage: str) -> dict[str, str | int]:
    """The ids on every log line about an attempt."""
    return {"run": fence.run_id, "stage": stage, "attempt": fence.attempt_no}


@dataclass
class Supervisor:
    factory: SessionFactory
    claim: Claim
    settings: Settings
    world_size: int = 1
    devices: Sequence[str] = ()  # values for CUDA_VISIBLE_DEVICES; empty without GPUs
    draining: Callable[[], bool] = lambda: False
    launcher: Launcher = OneMachine()  # noqa: RUF009 - has no state

    def __post_init__(self) -> None:
        self._lease: LeaseFile
        self._shown_at, self._boot = -SHOW_S, lease.boot_id()
        self._told = False  # the ledger has been told that this host drains
        fence = self.claim.fence
        self.out = self.settings.output_dir(fence.run_id, self.claim.stage, fence.attempt_no)
        self.mark = mark_of(fence)
        every_s = self.settings.sync_every_s
        self.renewal = Renewal(self.factory, fence, self.settings.timing(), every_s)
        self.relay = Relay(self.factory, fence, self.out, every_s)
        self.sampling = Sampling(self.factory, fence, self.devices)

    def run(self) -> StageStatus | None:
        """Run the attempt to its end. Returns the new status of its stage, or None if another attempt has taken over."""
        self.renewal.start()  # before a checkpoint of many gigabytes is verified
        try:
            return self._run()
        finally:
            self.renewal.close()

    def _run(self) -> StageStatus | None:
        try:
            process, resumed = self._launch()
        except OSError as err:
            log.error("the stage could not be launched: %s", err)
            return self._finish(not_launched(err))
        log.info("the stage runs as process %d%s", process.pid, f", from step {resumed.step}" if resumed else "")
        try:
            self.relay.report(
                lambda session: claims.started(
                    session,
                    self.claim.fence,
                    process=processes.identity() | {"machines": self.launcher.machines},
                    resumed_from_step=resumed.step if resumed else None,
                    resumed_from_attempt=resumed.attempt if resumed else None,
                )
            )
            self.relay.start()
            self.sampling.start()
            returncode = self._watch(process)
        finally:
            self.sampling.end()
            clean = processes.kill_all(self.mark)
            self.relay.close()
            self._lease.close()
            (self.out / BALLAST).unlink(missing_ok=True)
        if not clean:
            log.error("the stage left processes that do not die; its devices may stay taken")
        asked = Reason.HOST_DRAIN if self.renewal.stop_reason is None and self._told else self.renewal.stop_reason
        status = self._finish(judge(self.out, self.claim.outputs, returncode, asked))
        log.info("the attempt ended; the stage is %s", status or "another attempt's now")
        return status

    # -- launching --

    def _launch(self) -> tuple[subprocess.Popen[bytes], SavedCheckpoint | None]:
        """Raises OSError."""
        fence = self.claim.fence
        resumed = furthest_intact(self.claim, self.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.settings.cache_dir.mkdir(parents=True, exist_ok=True)
        (self.out / BALLAST).write_bytes(os.urandom(BALLAST_BYTES))  # random: a file system may store zeros as nothing
        spec = StageSpec(
            run=fence.run_id,
            stage=self.claim.stage,
            kind=self.claim.kind,
            attempt=fence.attempt_no,
            config=self.claim.config,
            seed=self.claim.seed,
            inputs=self.claim.inputs,
            output_dir=str(self.out),
            cache_dir=str(self.settings.cache_dir),
            resume_from=resumed.artifact if resumed else None,
            device=self.settings.device,
        )
        write_json(self.out / SPEC, spec.model_dump(mode="json"))
        if resumed is None:
            warn_of_a_start_from_zero(self.claim, self.out)
        self._lease = LeaseFile(self.out)
        self._show_lease()
        command = self.launcher.command(self.claim, self.out / SPEC, self.world_size)
        environment = child_environment({processes.MARK: self.mark} | self._visible())
        return launch(command, environment, self.out / STDOUT), resumed

    def _visible(self) -> dict[str, str]:
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.devices else {}

    # -- watching --

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        """Wait for the end. When a stop is wanted, request it and then enforce it. Returns torchrun's exit code."""
        asked_at: float | None = None
        while (code := process.poll()) is None:
            self._show_lease()
            if asked_at is None and self._stop_wanted():
                asked_at = time.monotonic()
                self._ask_to_stop(process)
            if asked_at is not None:
                abort = self.renewal.stop_reason is Reason.USER_ABORT
                self._escalate(process, math.inf if abort else time.monotonic() - asked_at)
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
        return code

    def _show_lease(self) -> None:
        """Tell the stage that this supervisor lives, and until when its attempt surely is the current one, once per second."""
        now = lease.now()
        if now < self._shown_at + SHOW_S:
            return
        timing = self.settings.timing()
        end_at = now + timing.lease_ttl + timing.lease_grace / 2
        try:
            self._lease.write(Lease(self._boot, now + timing.lease_ttl, end_at, self.renewal.held_until))
            self._shown_at = now
        except OSError as err:
            log.warning("the lease file cannot be written: %s", err)

    def _stop_wanted(self) -> bool:
        if not self._told and (self.relay.died or self.renewal.died):
            log.critical("a thread that reports to the ledger has ended, so the stage is handed on")
            self._told = True
        if self.draining() and not self._told:
            self._told = True
            self.relay.report(lambda session: claims.stopping(session, self.claim.fence, Reason.HOST_DRAIN))
        return self._told or self.relay.lost or self.renewal.lost or self.renewal.stop_reason is not None

    def _ask_to_stop(self, process: subprocess.Popen[bytes]) -> None:
        """Create the stop file. On a disk that takes no file, SIGTERM says the same to a training loop."""
        try:
            (self.out / STOP).touch()
        except OSError as err:
            log.warning("the stop file cannot be written, so the stage gets SIGTERM: %s", err)
            process.terminate()

    def _escalate(self, process: subprocess.Popen[bytes], waited: float) -> None:
        """Enforce the stop of a stage that does not end at a step boundary: SIGTERM, then SIGKILL to all its processes."""
        if waited > self.settings.stop_grace_s + self.settings.kill_grace_s:
            processes.kill_all(self.mark)
        elif waited > self.settings.stop_grace_s:
            process.terminate()

    # -- the end --

    def _finish(self, verdict: Verdict) -> StageStatus | None:
        """Store the rest of the spool and the verdict. Tries until the ledger answers; while draining, at most GIVE_UP_S."""
        gave_up_at: float | None = None
        while True:
            try:
                self.relay.flush()
                with self.renewal.last_word(), self.factory.begin() as session:
                    return claims.finish(
                        session,
                        self.claim.fence,
                        verdict.reason,
                        message=verdict.message,
                        exit_code=verdict.exit_code,
                        timing=self.settings.timing(),
                    )
            except LedgerError:
                self._leave()
                return None
            except SQLAlchemyError as err:
                log.warning("the end of the attempt cannot be reported yet: %s", err)
                if self.draining():
                    gave_up_at = gave_up_at or time.monotonic() + GIVE_UP_S
                    if time.monotonic() > gave_up_at:
                        raise
                time.sleep(1.0)

    def _leave(self) -> None:
        """Another attempt has taken over: store what this one wrote before it ended, as history. Its worker tries again when it starts."""
        fence = self.claim.fence
        late = LateFence(fence.run_id, fence.stage_id, fence.attempt_id, fence.attempt_no)
        try:
            leftovers.drain(self.factory, late, self.out)
        except (LedgerError, OSError, SQLAlchemyError) as err:
            log.warning("what this attempt had left is not stored: %s", err)
