"""Streams the answers of one turn: one, or two side by side.

Each HTTP stream is closed however its answer ends: complete, stopped, replaced by another turn, or the page closed. The
engine notices the closed stream and stops generating.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any

from client.errors import ClientError
from client.inference import Inference, Message, Piece
from services.ui.chat.reply import Reply

SENT_EVERY_S = 0.04  # a fast model generates tokens faster than a browser can draw them
RENDERING_SHARE = 5  # rendering a long answer takes longer; it gets at most a fifth of the time
ALIVE_EVERY_S = 1.0  # while there is nothing new, so that the page knows that the answer is still being waited for

News = tuple[int, Piece | ClientError | None]  # of the side with this index; None: it has ended


@dataclass(frozen=True, slots=True)
class Ask:
    """What one side is asked. `messages` is the conversation, or the text that a base model continues."""

    model: str
    label: str
    messages: Sequence[Message] | str
    sampling: dict[str, Any]

    def pieces(self, inference: Inference) -> Generator[Piece]:
        if isinstance(self.messages, str):
            return inference.continued(self.messages, self.model, **self.sampling)
        return inference.pieces(self.messages, self.model, **self.sampling)


@dataclass(slots=True)
class Turn:
    """Answers that are being written. `stop` ends them at once for the page, and for the engine with its next token."""

    stopped: Event = field(default_factory=Event)
    news: SimpleQueue[News | None] = field(default_factory=SimpleQueue)

    def stop(self) -> None:
        self.stopped.set()
        self.news.put(None)


@dataclass(slots=True)
class Turns:
    """Of one visitor's page, which shows one turn at a time."""

    current: Turn | None = None

    def begin(self) -> Turn:
        """A new turn. One that is still being answered ends."""
        self.stop()
        self.current = Turn()
        return self.current

    def stop(self) -> None:
        if self.current is not None:
            self.current.stop()


def answers(inference: Inference, asks: Sequence[Ask], turn: Turn) -> Generator[list[dict[str, Any]]]:
    """Yield the answers repeatedly while they grow, last when all have ended. An error of the service becomes part of its answer."""
    replies = [Reply(ask.model, ask.label, ask.sampling.get("temperature", 1.0)) for ask in asks]
    for i, ask in enumerate(asks):
        Thread(target=_read, args=(inference, ask, i, turn), name="chat-answer", daemon=True).start()
    pause, sent = SENT_EVERY_S, time.monotonic()
    try:
        yield [reply.shown() for reply in replies]
        while not all(reply.ended for reply in replies) and not turn.stopped.is_set():
            fresh = _apply(turn.news, replies)
            if fresh and time.monotonic() - sent < pause and not all(reply.ended for reply in replies):
                continue
            began = time.monotonic()
            yield [reply.shown() for reply in replies]
            sent = time.monotonic()
            pause = max(SENT_EVERY_S, RENDERING_SHARE * (sent - began))
        if turn.stopped.is_set():
            for reply in replies:
                reply.stop()
            yield [reply.shown() for reply in replies]
    finally:
        turn.stopped.set()


def _apply(news: SimpleQueue[News | None], replies: Sequence[Reply]) -> bool:
    """Wait for something new and note it. False if there was nothing for a while."""
    try:
        item = news.get(timeout=ALIVE_EVERY_S)
    except Empty:
        return False
    if item is None:
        return True
    side, what = item
    match what:
        case Piece():
            replies[side].add(what)
        case None:
            replies[side].end()
        case error:
            replies[side].end(str(error))
    return True


def _read(inference: Inference, ask: Ask, side: int, turn: Turn) -> None:
    try:
        with closing(ask.pieces(inference)) as pieces:
            for piece in pieces:
                if turn.stopped.is_set():
                    return
                turn.news.put((side, piece))
        turn.news.put((side, None))
    except ClientError as err:
        turn.news.put((side, err))
