"""Store the spools that lost attempts left on disk (controlplane/leftovers.py): as their heir, or as the worker that ran them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from controlplane import leftovers
from controlplane.claims import Fence, LateFence
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from controlplane.leftovers import Leftover
from nanochat.contract.contract import EVENTS, SPEC, StageSpec
from services.worker.resume import origin_of
from services.worker.settings import Settings
from services.worker.storing import Storing

log = logging.getLogger(__name__)

TAIL = 1 << 20  # bytes


def inherit(factory: SessionFactory, heir: Fence, out: Path) -> None:
    """Store what the lost attempts before `heir`, which writes to `out`, left beside it. An event tells what cannot be stored.

    Raises FenceLost, and SQLAlchemyError if the ledger does not answer.
    """
    with factory() as session:
        found = leftovers.before(session, heir)
    problems = [problem for one in found if (problem := _problem(factory, one, folder_beside(out, one)))]
    if problems:
        with factory.begin() as session:
            if leftovers.report_hole(session, heir, "; ".join(problems)):
                log.warning("the curve has a hole: %s", "; ".join(problems))


def drain_own(factory: SessionFactory, worker_id: str, settings: Settings) -> int:
    """Store what is left of the attempts that this worker lost and whose files are here. Returns of how many."""
    with factory() as session:
        found = leftovers.of_worker(session, worker_id)
    drained = 0
    for one in found:
        out = settings.output_dir(one.fence.run_id, one.stage, one.fence.attempt_no)
        if (out / EVENTS).is_file() and last_seq(out / EVENTS) > one.event_seq:
            with bound_contextvars(run=one.fence.run_id, stage=one.stage, attempt=one.fence.attempt_no):
                try:
                    drain(factory, one.fence, out)
                    drained += 1
                except (LedgerError, OSError) as err:  # its run was deleted, or the disk is sick: the next one may work
                    log.warning("what the attempt left cannot be stored: %s", err)
    return drained


def drain(factory: SessionFactory, fence: LateFence, out: Path) -> None:
    """Store the rest of an ended attempt's spool. Raises LedgerError, OSError, and SQLAlchemyError if the ledger does not answer."""
    record_begin(factory, fence, out)
    Storing(factory, fence, out).rest()
    log.info("stored what attempt %d had left", fence.attempt_no)


def record_begin(factory: SessionFactory, fence: Fence, out: Path) -> None:
    """Record that the attempt began and from where, by its stage.json, in case its supervisor could not. Raises as `drain`."""
    try:
        spec = StageSpec.model_validate_json((out / SPEC).read_bytes())
    except (FileNotFoundError, ValueError):  # it was never launched
        return
    step, attempt = origin_of(spec.resume_from, out) if spec.resume_from else (None, None)
    with factory.begin() as session:
        leftovers.began(session, fence, step, attempt)


def folder_beside(out: Path, one: Leftover) -> Path:
    return out.parent / f"attempt-{one.fence.attempt_no}"


def _problem(factory: SessionFactory, one: Leftover, folder: Path) -> str | None:
    """Store the leftover. Returns why that is not possible, if the files are at fault."""
    number = one.fence.attempt_no
    try:
        if last_seq(folder / EVENTS) > one.event_seq:
            drain(factory, one.fence, folder)
    except FileNotFoundError:
        return (
            f"the events of attempt {number}, which ran on worker {one.worker_id}, are not at {folder} on this machine; "
            "they are stored when that worker starts again, if its files still exist"
        )
    except OSError as err:
        return f"the events of attempt {number} cannot be read: {err}"
    except (LedgerError, SQLAlchemyError):
        raise
    except Exception as err:  # a defect: it must not keep the heir's own events from being stored
        log.exception("what attempt %d left cannot be stored", number)
        return f"the events of attempt {number} cannot be stored: {err!r}"
    return None


def last_seq(path: Path) -> int:
    """The number of the last whole event of a file, -1 without one. Raises OSError."""
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read().split(b"\n")
    for line in reversed(lines):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("seq"), int):
            return int(event["seq"])
    return -1
