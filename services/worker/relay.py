"""The thread between a stage and the ledger: renews the lease, stores events and log lines, hears when to stop.

The ledger may be away for hours: the stage goes on, its files are the spool, and the relay catches up. Only a positive
answer that the fence is lost ends it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.orm import Session

from controlplane import claims, ingest
from controlplane.claims import Fence
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from controlplane.lifecycle import Reason
from controlplane.models import Json
from controlplane.timing import Timing
from nanochat.contract.contract import EVENTS
from services.worker.spool import Batch, Tail, parse

log = logging.getLogger(__name__)

STDOUT = "stdout.log"
Report = Callable[[Session], None]


class Relay:
    """One attempt's line to the ledger. `start`, then `close` once its processes are gone."""

    def __init__(self, factory: SessionFactory, fence: Fence, out: Path, timing: Timing, every_s: float):
        self._factory, self._fence, self._timing, self._every_s = factory, fence, timing, every_s
        self._events, self._lines = Tail(out / EVENTS), Tail(out / STDOUT)
        self._pending: list[Report] = []
        self._wake, self._closing = threading.Event(), threading.Event()
        # The copied context carries the ids of the attempt into the thread's log lines.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="relay", daemon=True)
        self._away_since: float | None = None
        self.stop_reason: Reason | None = None
        self.lost = False

    def start(self) -> None:
        self._thread.start()

    def report(self, what: Report) -> None:
        """Have a call made in the ledger, in order and as soon as it answers."""
        self._pending.append(what)
        self._wake.set()

    def close(self) -> None:
        """End the thread; what is left to store, `flush` stores."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def flush(self) -> None:
        """Store everything that the files hold. Raises FenceLost, and SQLAlchemyError while the ledger is away."""
        self._reports()
        while self._store_events(last=True) | self._store_lines(last=True):
            pass

    def _run(self) -> None:
        while not self._closing.is_set() and not self.lost:
            more = False
            try:
                self._renew()
                self._reports()
                more = self._store_events() | self._store_lines()
                self._is_back()
            except LedgerError as err:
                log.warning("%s; stopping it here", err)
                self.lost = True
            except SQLAlchemyError as err:
                self._is_away(err)
            except Exception:
                # A fault of ours must not cost the lease, and with it the stage.
                log.exception("the relay stumbled; it goes on")
            if not more:
                self._wake.wait(self._every_s)
                self._wake.clear()

    def _renew(self) -> None:
        with self._factory.begin() as session:
            self.stop_reason = claims.renew(session, self._fence, timing=self._timing).stop

    def _reports(self) -> None:
        while self._pending:
            with self._factory.begin() as session:
                self._pending[0](session)
            self._pending.pop(0)

    def _store_events(self, *, last: bool = False) -> bool:
        batch = self._events.read(last=last)
        if batch.lines:
            events = parse(batch.lines)
            self._store_or_sift(events)
            self._events.advance(batch)
        return bool(batch.lines)

    def _store_or_sift(self, events: list[Json]) -> None:
        """Store a batch; when the ledger cannot take some event in it, all but that one."""
        if not events:
            return
        try:
            with self._factory.begin() as session:
                ingest.events(session, self._fence, events)
        except _UNFIT as err:
            if len(events) == 1:
                log.error("an event that the ledger cannot take is left out: %.500r: %s", events[0], err)
                return
            for event in events:
                self._store_or_sift([event])

    def _store_lines(self, *, last: bool = False) -> bool:
        batch: Batch = self._lines.read(last=last)
        if batch.lines:
            lines = [line.decode(errors="replace").rstrip("\r") for line in batch.lines]
            with self._factory.begin() as session:
                ingest.logs(session, self._fence, batch.first, lines)
            self._lines.advance(batch)
        return bool(batch.lines)

    def _is_away(self, err: SQLAlchemyError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            cause = err.orig if isinstance(err, DBAPIError) else err
            log.warning("the ledger does not answer; the stage goes on and its events wait on disk: %s", cause)

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.info("the ledger answers again after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None


_UNFIT = (DataError, IntegrityError, ProgrammingError, KeyError, TypeError, ValueError)
