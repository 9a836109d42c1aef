"""The thread that renews an attempt's lease and learns when to stop. It waits for nothing that is stored: a flood of log lines, or a
transaction of somebody else that locks the run, must not cost the lease.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from controlplane import claims
from controlplane.claims import Fence
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from controlplane.lifecycle import Reason
from controlplane.timing import Timing
from nanochat.contract import lease
from services.worker.turns import Turns

log = logging.getLogger(__name__)


class Renewal:
    """Renews from `start` until the attempt ends (`last_word`) or `close`, in a connection of its own."""

    def __init__(self, factory: SessionFactory, fence: Fence, timing: Timing, every_s: float):
        self._factory, self._fence, self._timing = factory, fence, timing
        self._turns = Turns("renewal", self._turn, every_s)
        self._turn_lock = threading.Lock()
        self._away_since: float | None = None
        self.stop_reason: Reason | None = None
        self.lost = False
        self.held_until = 0.0  # seconds since the boot: until then the ledger surely counts this attempt as the current one

    @property
    def died(self) -> bool:
        return self._turns.died

    def start(self) -> None:
        self._turns.start()

    def close(self) -> None:
        self._turns.close()

    @contextmanager
    def last_word(self) -> Iterator[None]:
        """No renewal while the block runs, and none after it, unless it raises: it ends the attempt."""
        with self._turn_lock:
            yield
            self._turns.end()

    def _turn(self) -> bool:
        with self._turn_lock:
            if not self._turns.ending:
                try:
                    self._renew()
                    self._is_back()
                except LedgerError as err:
                    log.warning("%s; stopping it here", err)
                    self.lost = True
                    self._turns.end()
                except SQLAlchemyError as err:
                    self._is_away(err)
        return False

    def _renew(self) -> None:
        asked_at = lease.now()  # before the ledger grants it: a pause of this machine must not make the lease look longer
        with self._factory.begin() as session:
            self.stop_reason = claims.renew(session, self._fence, timing=self._timing).stop
        self.held_until = asked_at + self._timing.lease_ttl

    def _is_away(self, err: SQLAlchemyError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            log.warning("the ledger does not answer; the stage continues and its events wait on disk: %s", cause_of(err))

    def _is_back(self) -> None:
        if self._away_since is not None:
            log.info("the ledger answers again after %.0f s", time.monotonic() - self._away_since)
            self._away_since = None


def cause_of(err: SQLAlchemyError) -> str:
    """The error in one line: psycopg's messages have two."""
    return " ".join(str(err.orig if isinstance(err, DBAPIError) else err).split())
