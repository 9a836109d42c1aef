"""Store what a stage wrote into its files, its events and its output, in the ledger: each line once, in order."""

from __future__ import annotations

import logging
from pathlib import Path

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from controlplane import ingest
from controlplane.claims import Fence
from controlplane.db import SessionFactory
from controlplane.models import Json
from nanochat.contract.contract import EVENTS
from nanochat.contract.lines import SHOWN, BadLine, sift
from services.worker.spool import Lines, Tail

log = logging.getLogger(__name__)

STDOUT = "stdout.log"


class Storing:
    """The spool of one attempt. Every method raises FenceLost, and SQLAlchemyError if the ledger does not answer."""

    def __init__(self, factory: SessionFactory, fence: Fence, out: Path):
        self._factory, self._fence = factory, fence
        self._events, self._lines = Tail(out / EVENTS), Tail(out / STDOUT)
        self._last_seq = -1  # of the events that are stored

    def some(self, *, last: bool = False) -> bool:
        """Store the next events and lines, and say whether there were any. With `last`, nobody writes the files any more."""
        return self._store_events(last=last) | self._store_lines(last=last)

    def rest(self) -> None:
        """Store all that is left."""
        while self.some(last=True):
            pass

    def _store_events(self, *, last: bool) -> bool:
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

    def _store_lines(self, *, last: bool) -> bool:
        batch: Lines = self._lines.read(last=last)
        if batch.lines:
            lines = [line.decode(errors="replace").rstrip("\r") for line in batch.lines]
            with self._factory.begin() as session:
                ingest.logs(session, self._fence, batch.first, lines)
            self._lines.advance(batch)
        return bool(batch.lines)


_UNFIT = (DataError, IntegrityError, ProgrammingError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
_LIMIT_EXCEEDED = "54"  # class of SQLSTATE, such as an index entry that is too long; SQLAlchemy makes it an OperationalError


def _is_unfit(err: Exception) -> bool:
    """Whether an event is at fault, not the database."""
    state = getattr(err.orig, "sqlstate", None) if isinstance(err, DBAPIError) else None
    return isinstance(err, _UNFIT) or (state or "").startswith(_LIMIT_EXCEEDED)
