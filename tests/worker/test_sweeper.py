"""The worker's deletion of files that nothing needs, on real folders."""

from __future__ import annotations

import os
from pathlib import Path

from controlplane import retention
from controlplane.db import SessionFactory
from controlplane.lifecycle import Reason
from controlplane.models import Checkpoint
from controlplane.timing import Timing
from nanochat.contract.contract import seal
from services.worker.sweeper import sweep
from tests.controlplane.ledger import Ledger, checkpoint
from tests.controlplane.test_retention import training

NOW = Timing(gc_grace=0.0)


def saved(runs: Path, run: str, step: int) -> dict[str, object]:
    folder = runs / run / "base_train" / "attempt-1" / "checkpoints" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    sealed = seal(folder)
    return checkpoint(step) | {"path": sealed.path, "sha256": sealed.sha256, "val_bpb": None}


def test_files_go_and_what_is_needed_stays(sessions: SessionFactory, home: Path) -> None:
    runs, ledger = home / "runs", Ledger(sessions)
    run, claim = training(ledger)
    made = [saved(runs, run, step) for step in (10, 20, 30)]
    ledger.report(claim.fence, *made)
    ledger.finish(claim.fence, Reason.NONFINITE)
    with sessions.begin() as s:
        retention.collect(s, dry_run=False, timing=NOW)
    assert sweep(sessions, runs.resolve(), NOW) == 1
    assert [Path(str(c["path"])).is_dir() for c in made] == [False, True, True]
    assert sweep(sessions, runs.resolve(), NOW) == 0


def test_a_folder_outside_of_the_runs_is_left_alone(sessions: SessionFactory, home: Path, tmp_path: Path) -> None:
    ledger = Ledger(sessions)
    _, claim = training(ledger)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ledger.report(claim.fence, checkpoint(10) | {"path": str(elsewhere)})
    ledger.finish(claim.fence, Reason.NONFINITE)
    with sessions.begin() as s:
        retention.discard(s, s.query(Checkpoint.id).scalar())
    sweep(sessions, (home / "runs").resolve(), NOW)
    assert elsewhere.is_dir()


def test_the_folder_of_a_run_that_is_gone_is_deleted_when_it_is_old(sessions: SessionFactory, home: Path) -> None:
    runs, known = home / "runs", Ledger(sessions).submit()
    for name in (known, "r_0123456789abcdef", "r_fedcba9876543210", "notes"):
        (runs / name).mkdir(parents=True)
        if name != "r_fedcba9876543210":
            os.utime(runs / name, (1, 1))
    assert sweep(sessions, runs.resolve(), Timing()) == 1
    assert sorted(f.name for f in runs.iterdir()) == sorted([known, "r_fedcba9876543210", "notes"])
