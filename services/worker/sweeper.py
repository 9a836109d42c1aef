"""Deletes the files of checkpoints that the ledger has given up (controlplane/retention.py), and what deleted runs left.

Every worker of the cpu queue runs this thread; a lock in the database lets one of them work at a time. It is a worker's task
because workers alone may write to the runs' folder.
"""

from __future__ import annotations

import logging
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from controlplane import retention
from controlplane.db import SessionFactory
from controlplane.loops import leading
from controlplane.models import Run
from controlplane.timing import Timing
from nanochat.contract.contract import MANIFEST
from services.worker.settings import Settings

log = logging.getLogger(__name__)

PERIOD_S = 60.0
RUN_FOLDER = re.compile(r"r_[0-9a-f]{16}")


class Sweeper:
    def __init__(self, factory: SessionFactory, settings: Settings, ticked: Callable[[], None], period_s: float = PERIOD_S):
        self._ticked = ticked
        self._factory, self._timing, self._period_s = factory, settings.timing(), period_s
        self._runs = (settings.home / "runs").resolve()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                sweep(self._factory, self._runs, self._timing)
                self._ticked()
            except Exception:
                log.warning("files could not be deleted; trying again in %.0f s", self._period_s, exc_info=True)


def sweep(factory: SessionFactory, runs: Path, timing: Timing) -> int:
    """Delete what is due below `runs`, the folder of all runs. Returns the number of folders deleted."""
    with factory.begin() as session:
        if not leading(session, "sweeper", timing):
            return 0
        due = retention.take_expired(session)
    for checkpoint_id, path in due:
        _delete(Path(path), runs)
        with factory.begin() as session:
            retention.freed(session, checkpoint_id)
    orphans = _orphans(factory, runs, timing.gc_grace)
    for folder in orphans:
        _delete(folder, runs)
    return len(due) + len(orphans)


def _orphans(factory: SessionFactory, runs: Path, older_than_s: float) -> list[Path]:
    """Folders of runs that the ledger no longer has. Only old ones: a run that has just been deleted may still be ending."""
    if not runs.is_dir():
        return []
    before = time.time() - older_than_s
    found = [f for f in runs.iterdir() if RUN_FOLDER.fullmatch(f.name) and f.is_dir() and f.stat().st_mtime < before]
    with factory() as session:
        known = set(session.scalars(select(Run.id).where(Run.id.in_([f.name for f in found]))))
    return [folder for folder in found if folder.name not in known]


def _delete(folder: Path, runs: Path) -> None:
    """Delete a folder, its manifest first: from then on nobody takes the rest for an artifact. Raises OSError."""
    if not folder.resolve().is_relative_to(runs) or folder.resolve() == runs:
        log.warning("%s is not deleted, because it is outside of %s", folder, runs)
        return
    if folder.is_dir():
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
        log.info("deleted %s", folder)
