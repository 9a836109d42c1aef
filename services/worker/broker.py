"""The broker's transport, which survives what is not a message: kombu's own one ends the worker when it finds such an entry."""

from __future__ import annotations

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis

log = logging.getLogger(__name__)

# No JSON, JSON nested too deep, or none with the fields of a message.
_NOT_A_MESSAGE = (ValueError, RecursionError, TypeError, KeyError, AttributeError)


class Channel(redis.Channel):
    def _brpop_read(self, **options: Any) -> bool:
        """Take one entry from the list. Garbage has left the list by then; the stage that it may have meant is called again."""
        try:
            return bool(super()._brpop_read(**options))  # type: ignore[no-untyped-call]
        except (Empty, *self.connection_errors):
            raise
        except _NOT_A_MESSAGE as err:
            log.warning("threw away an entry of the queue that is not a message: %r", err)
            return True


class Transport(redis.Transport):
    Channel = Channel
