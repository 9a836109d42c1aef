"""The thread between a stage and the ledger: it renews the lease, stores events and log lines, and learns when to stop.

If the ledger does not answer, even for hours, the stage continues. Its files are the spool, and the relay catches up later. Only
the ledger's answer that the fence is lost ends the stage.
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
from nanochat.contract import lease
from nanochat.contract.contract import EVENTS
from nanochat.contract.lines import SHOWN, BadLine, sift
from services.worker.spool import Lines, Tail

log = logging.getLogger(__name__)

STDOUT = "stdout.log"
Report = Callable[[Session], None]


class Relay:
    """Relays one attempt to the ledger. Call `start`, and `close` once the processes of the attempt are gone."""

    def __init__(self, factory: SessionFactory, fence: Fence, out: Path, timing: Timing, every_s: float):
        self._factory, self._fence, self._timing, self._every_s = factory, fence, timing, every_s
        self._events, self._lines = Tail(out / EVENTS), Tail(out / STDOUT)
        self._pending: list[Report] = []
        self._wake, self._closing = threading.Event(), threading.Event()
        # The copied context carries the ids of the attempt into the thread's log lines.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="relay", daemon=True)
        self._last_seq = -1  # of the events that are stored
        self._away_since: float | None = None
        self.stop_reason: Reason | None = None
        self.lost = False
        self.held_until = 0.0  # seconds since the boot: until then the ledger surely counts this attempt as the current one

    @property
    def died(self) -> bool:
        """Whether the thread has ended though nobody closed the relay and the fence is not lost."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self.lost and not self._closing.is_set()

    def start(self) -> None:
        self._thread.start()

    def report(self, what: Report) -> None:
        """Queue a call to the ledger. Calls are made in order, as soon as the ledger answers."""
        self._pending.append(what)
        self._wake.set()

    def close(self) -> None:
        """End the thread. `flush` stores what is left."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def flush(self) -> None:
        """Store the rest of the files. Raises FenceLost, and SQLAlchemyError if the ledger does not answer."""
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
                # A defect of the relay must not lose the lease, and with it the stage.
                log.exception("the relay failed and continues")
            if not more:
                self._wake.wait(self._every_s)
                self._wake.clear()

    def _renew(self) -> None:
        asked_at = lease.now()  # before the ledger grants it: a pause of this machine must not make the lease look longer
        with self._factory.begin() as session:
            self.stop_reason = claims.renew(session, self._fence, timing=self._timing).stop
        self.held_until = asked_at + self._timing.lease_ttl

    def _reports(self) -> None:
        while self._pending:
            with self._factory.begin() as session:
                self._pending[0](session)
            self._pending.pop(0)

    def _store_events(self, *, last: bool = False) -> bool:
        batch = self._events.read(last=last)
        if batch.lines:
            sifted = sift(batch.lines, batch.first, self._last_seq)
            bad = sifted.bad + self._store_fitting(sifted.events)
            if bad:
                log.warning("%d lines of %s are set aside; line %d: %s", len(bad), EVENTS, bad[0].number, bad[0].reason)
                with self._factory.begin() as session:
                    ingest.quarantine(session, self._fence, bad)
            self._events.advance(batch)
            self._last_seq = sifted.last_seq
        return bool(batch.lines)

    def _store_fitting(self, events: list[Json]) -> list[BadLine]:
        """Store the events. Returns those that the ledger refuses, which the others must not wait for."""
        if not events:
            return []
        try:
            with self._factory.begin() as session:
                ingest.events(session, self._fence, events)
        except (DBAPIError, *_UNFIT) as err:
            if not _is_unfit(err):
                raise
            if len(events) == 1:
                return [BadLine(events[0]["seq"], f"the ledger refuses it: {err}"[:SHOWN], repr(events[0])[:SHOWN])]
            half = len(events) // 2
            return self._store_fitting(events[:half]) + self._store_fitting(events[half:])
        return []

    def _store_lines(self, *, last: bool = False) -> bool:
        batch: Lines = self._lines.read(last=last)
        if batch.lines:
            lines = [line.decode(errors="replace").rstrip("\r") for line in batch.lines]
            with self._factory.begin() as session:
                ingest.logs(session, self._fence, batch.first, lines)
            self._lines.advance(batch)
        return bool(batch.lines)

    def _is_away(self, err: SQLAlchemyError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            cause = " ".join(str(err.orig if isinstance(err, DBAPIError) else err).split())  # psycopg's messages have two lines
            log.warning("the ledger does not answer; the stage continues and its events wait on disk: %s", cause)

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.info("the ledger answers again after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None


_UNFIT = (DataError, IntegrityError, ProgrammingError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
_LIMIT_EXCEEDED = "54"  # class of SQLSTATE, such as an index entry that is too long; SQLAlchemy makes it an OperationalError


def _is_unfit(err: Exception) -> bool:
    """Whether an event is at fault, not the database."""
    state = getattr(err.orig, "sqlstate", None) if isinstance(err, DBAPIError) else None
    return isinstance(err, _UNFIT) or (state or "").startswith(_LIMIT_EXCEEDED)
