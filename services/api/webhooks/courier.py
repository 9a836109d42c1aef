"""The control loop of webhooks: events become deliveries, due deliveries are sent, and what became of them is recorded."""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from controlplane import deliveries, outbox
from controlplane.db import SessionFactory
from controlplane.deliveries import Order, Outcome
from controlplane.loops import leading
from controlplane.timing import DEFAULT, Timing
from services.api.webhooks.sender import MOST, Sender

LOOP = "webhooks"
TIDY_S = 60.0

log = logging.getLogger(__name__)


class Courier:
    """Call `tick` every second, and at once after `wake` was called. Only the leading process claims; each records its own tries."""

    def __init__(self, ledger: SessionFactory, sender: Sender, *, timing: Timing = DEFAULT):
        self._ledger, self._sender, self._timing = ledger, sender, timing
        self._ended: queue.SimpleQueue[tuple[Order, Outcome]] = queue.SimpleQueue()
        self._unrecorded: list[tuple[Order, Outcome]] = []  # only the loop's thread uses it, as `_busy`
        self._busy: Counter[str] = Counter()  # webhook -> tries under way
        self._tidied = 0.0
        self.wake: Callable[[], None] = lambda: None

    def tick(self) -> None:
        self._record()
        # Before new deliveries are made: what is due goes out even if an event cannot be read.
        self._send()
        if self._advance():
            self.wake()
        if time.monotonic() - self._tidied > TIDY_S:
            with self._ledger.begin() as session:
                if leading(session, LOOP, self._timing):
                    deliveries.tidy(session, timing=self._timing)
            self._tidied = time.monotonic()

    def _record(self) -> None:
        while not self._ended.empty():
            order, outcome = self._ended.get()
            self._unrecorded.append((order, outcome))
            self._busy -= Counter({order.webhook_id: 1})
        while self._unrecorded:
            order, outcome = self._unrecorded[0]
            try:
                with self._ledger.begin() as session:
                    deliveries.record(session, order, outcome, timing=self._timing)
            except (OperationalError, InterfaceError, PoolTimeout):
                raise  # the database is away: once more with the next tick
            except Exception:
                log.exception("the outcome of delivery %s could not be recorded; it will be sent again", order.message_id)
            del self._unrecorded[0]

    def _send(self) -> None:
        free = MOST - self._busy.total()
        if free <= 0:
            return
        with self._ledger.begin() as session:
            if not leading(session, LOOP, self._timing):
                return
            orders = deliveries.claim(session, self._busy, free)
        for order in orders:
            self._busy[order.webhook_id] += 1
            self._sender.send(order).add_done_callback(lambda sent, order=order: self._done(order, sent))  # type: ignore[misc]

    def _done(self, order: Order, sent: Future[Outcome]) -> None:
        """Called in the sender's thread."""
        if not sent.cancelled():
            self._ended.put((order, sent.result()))
            self.wake()

    def _advance(self) -> bool:
        """Make the deliveries of settled events. True if there is something to do at once."""
        with self._ledger() as session:
            seen = outbox.horizon(session)
        with self._ledger.begin() as session:
            if not leading(session, LOOP, self._timing):
                return False
            made, more = outbox.advance(session, seen)
        return bool(made) or more
