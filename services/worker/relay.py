"""The thread between a stage and the ledger: it stores events and log lines, and makes the supervisor's reports.

First it stores what the lost attempts before this one left, so that nothing of this one stands in the ledger before the curve up to
its first step is whole.

If the ledger does not answer, even for hours, the stage continues. Its files are the spool, and the relay catches up later. Only
the ledger's answer that the fence is lost ends the stage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from controlplane.claims import Fence
from controlplane.db import SessionFactory
from controlplane.errors import LedgerError
from services.worker import leftovers
from services.worker.renewal import cause_of
from services.worker.storing import Storing
from services.worker.turns import Turns

log = logging.getLogger(__name__)

Report = Callable[[Session], None]


class Relay:
    """Relays one attempt to the ledger. Call `start`, and `close` once the processes of the attempt are gone."""

    def __init__(self, factory: SessionFactory, fence: Fence, out: Path, every_s: float):
        self._factory, self._fence, self._out = factory, fence, out
        self._inherits = fence.attempt_no > 1
        self._storing = Storing(factory, fence, out)
        self._pending: list[Report] = []
        self._turns = Turns("relay", self._turn, every_s)
        self._failing = False
        self.lost = False

    @property
    def died(self) -> bool:
        return self._turns.died

    def start(self) -> None:
        self._turns.start()

    def report(self, what: Report) -> None:
        """Queue a call to the ledger. Calls are made in order, as soon as the ledger answers."""
        self._pending.append(what)
        self._turns.wake()

    def close(self) -> None:
        """End the thread. `flush` stores what is left."""
        self._turns.close()

    def flush(self) -> None:
        """Store the rest of the files. Raises FenceLost, and SQLAlchemyError if the ledger does not answer."""
        self._reports()
        self._inherit()
        self._storing.rest()

    def _turn(self) -> bool:
        try:
            self._reports()
            self._inherit()
            more = self._storing.some()
        except LedgerError as err:
            log.warning("%s; nothing more of it is stored", err)
            self.lost = True
            self._turns.end()
            return False
        except SQLAlchemyError as err:
            log.log(logging.DEBUG if self._failing else logging.WARNING, "events and lines wait on disk: %s", cause_of(err))
            self._failing = True
            return False
        self._failing = False
        return more

    def _reports(self) -> None:
        while self._pending:
            with self._factory.begin() as session:
                self._pending[0](session)
            self._pending.pop(0)

    def _inherit(self) -> None:
        if self._inherits:
            leftovers.inherit(self._factory, self._fence, self._out)
            self._inherits = False
