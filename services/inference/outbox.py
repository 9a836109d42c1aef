"""Sends what all connections wrote in one turn of the event loop together, at the beginning of the next turn.

A step of the engine has a token for each stream. If each is sent when its text is ready, the reader at the other end falls
asleep and is woken for each of them: a send takes about 8 µs of CPU, and 2 µs when many follow each other. It also joins the
headers of an answer with its first event, and the last event with the end of the body.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Outbox:
    """One for each server."""

    def __init__(self) -> None:
        self._full: list[GatheringTransport] = []

    def add(self, transport: GatheringTransport) -> None:
        if not self._full:
            asyncio.get_running_loop().call_soon(self._send)
        self._full.append(transport)

    def _send(self) -> None:
        full, self._full = self._full, []
        for transport in full:
            transport.flush()


class GatheringTransport:
    """A transport that sends what was written when `outbox` says so, or before it is closed."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox):
        self._transport, self._outbox = transport, outbox
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._written:
            self._outbox.add(self)
        self._written.append(data)

    def flush(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(written[0] if len(written) == 1 else b"".join(written))

    def close(self) -> None:
        self.flush()
        self._transport.close()
