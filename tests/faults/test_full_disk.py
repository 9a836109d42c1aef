"""A disk that is really full, and one that is really read-only: the stage says so, waits, and goes on when it is mended."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from sqlalchemy import func, update

from controlplane.lifecycle import Reason, StageStatus
from controlplane.models import Stage
from tests.waiting import until
from tests.worker.platform import Platform

# A worker in a mount namespace of its own, whose folder of runs is a disk of 4 MiB.
INSIDE = 'mount -t tmpfs -o size=4m disk "$NANOCHAT_HOME/runs" && {then}; exec {python} -m services.worker --queue cpu'
FILL = 'dd if=/dev/zero of="$NANOCHAT_HOME/runs/other" bs=64k 2>/dev/null'
LOCK = 'mount -o remount,ro "$NANOCHAT_HOME/runs"'
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]

may_mount = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "disk", "/mnt"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not may_mount, reason="this machine lets no user mount a disk of his own")
@pytest.mark.parametrize(("then", "reason"), [(FILL, Reason.DISK_FULL), (LOCK, Reason.READ_ONLY)], ids=["full", "read-only"])
def test_a_stage_waits_until_the_disk_is_mended(platform: Platform, then: str, reason: Reason) -> None:
    (platform.home / "runs").mkdir(parents=True)
    platform.start_loops()
    script = INSIDE.format(then=then, python=sys.executable)
    log = platform.home / "worker-cpu.log"
    with log.open("ab") as output:
        platform.workers["cpu"] = subprocess.Popen(
            [*UNSHARE, "sh", "-c", script],
            env={**os.environ, **platform.env},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    run = platform.submit(**{"data.source": {"kind": "pydocs", "max_chars": 300_000}, "data.tok_chars": 200_000})
    until(lambda: platform.stage(run, "data").status is StageStatus.BACKOFF, "the stage to wait", 90)
    stage = platform.stage(run, "data")
    assert (stage.reason, stage.attempts[0].reason) == (reason, reason), stage.message
    assert reason.message in platform.run(run).detail

    platform.kill_worker("cpu")  # the disk goes with it; the next worker has the healthy one
    platform.start_worker("cpu")
    with platform.factory.begin() as s:  # a minute passes
        s.execute(update(Stage).where(Stage.run_id == run, Stage.status == StageStatus.BACKOFF).values(retry_at=func.now()))
    until(lambda: platform.stage(run, "data").status is StageStatus.SUCCEEDED, "the stage to go on", 120)
