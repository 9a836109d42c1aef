"""The lease file: a stage whose supervisor writes no more stops, then ends; a stage without the file is left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.contract import lease
from nanochat.contract.lease import LEASE, Lease, LeaseFile
from tests.waiting import until

STAGE = "import sys, time; from pathlib import Path; from nanochat.contract import lease; out = Path(sys.argv[1]); "
STAGE += "lease.watch(out, out / 'stop', 75); print('ready', flush=True); time.sleep(60)"


def start(out: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", STAGE, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def after(stop_s: float, end_s: float, held_s: float, boot: str | None = None) -> Lease:
    now = lease.now()
    return Lease(boot or lease.boot_id(), now + stop_s, now + end_s, now + held_s)


def test_a_stage_whose_supervisor_is_silent_is_asked_to_stop_and_then_ends(tmp_path: Path) -> None:
    owner = LeaseFile(tmp_path)
    owner.write(after(600, 600, 600))
    process = start(tmp_path)
    owner.write(after(-1, 600, 600))
    until((tmp_path / "stop").exists, "the request to stop")
    assert process.poll() is None
    owner.write(after(-1, -1, 600))
    assert process.wait(20) == 75


def test_a_rank_on_another_machine_and_a_stage_without_a_lease_are_left_alone(tmp_path: Path) -> None:
    alone = start(tmp_path)
    LeaseFile(tmp_path).write(after(-9, -9, 600, boot="another"))
    remote = start(tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        remote.wait(3 * lease.POLL_S)
    assert alone.poll() is None
    for process in (alone, remote):
        process.kill()
        process.wait()


def test_only_a_sure_owner_deletes(tmp_path: Path) -> None:
    assert lease.may_delete(tmp_path)  # nobody else knows of it
    owner = LeaseFile(tmp_path)
    owner.write(after(600, 600, 600))
    assert lease.may_delete(tmp_path)
    owner.write(after(600, 600, -1))
    assert not lease.may_delete(tmp_path)
    owner.write(after(600, 600, 600, boot="another"))
    assert not lease.may_delete(tmp_path)
    (tmp_path / LEASE).write_text("half")
    assert not lease.may_delete(tmp_path)
