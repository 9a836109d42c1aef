"""Streams one answer of the model into the chat.

The HTTP stream is closed however the answer ends: complete, stopped, replaced by another turn, or the page closed. The
engine notices the closed stream and stops generating.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from client.errors import ClientError
from client.inference import Calculation, Message, Piece, Usage
from client.text import number
from services.ui.platform import Platform

History = list[dict[str, Any]]
SENT_EVERY_S = 0.04  # a fast model generates tokens faster than a browser can draw them


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling parameters beside the chat. 0 or None in one of the optional ones means the server's default."""

    model: str | None
    system: str
    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int | None

    def request(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p}
        wanted |= {"top_k": int(self.top_k)} if self.top_k else {}
        wanted |= {"max_tokens": int(self.max_tokens)} if self.max_tokens else {}
        wanted |= {"seed": int(self.seed)} if self.seed is not None else {}
        return wanted


@dataclass(slots=True)
class Turns:
    """Turns of one visitor. At most one answer is being written at a time; `stopped` ends it."""

    number: int = 0
    stopped: bool = False

    def begin(self) -> int:
        """Start a turn and return its number. An answer still being written for an earlier turn ends."""
        self.number, self.stopped = self.number + 1, False
        return self.number


def answer(platform: Platform, history: History, sampling: Sampling, turns: Turns) -> Generator[tuple[History, str]]:
    """Yield (history, status line) repeatedly while the answer grows. An error of the service becomes the status line."""
    reply, clock, mine = Reply(), Clock(), turns.begin()
    pieces = platform.inference.pieces(messages(history, sampling.system), sampling.model, **sampling.request())
    try:
        with closing(pieces):
            for piece in pieces:
                if turns.number != mine:
                    return
                if turns.stopped:
                    break
                reply.add(piece)
                if clock.tick(bool(piece.text)):
                    yield history + reply.shown(), clock.line()
    except ClientError as err:
        yield history + reply.shown(), f"⚠ {err}"
        return
    if turns.stopped:
        yield history + reply.shown(), "stopped"
    else:
        yield history + reply.shown(ended=True), clock.line(reply.usage, reply.finish_reason)


def messages(history: History, system: str) -> list[Message]:
    """The conversation as it is sent to the model: text only, without the notes about the calculator."""
    said: list[Message] = [{"role": "system", "content": system.strip()}] if system.strip() else []
    told = [entry for entry in history if not (entry.get("metadata") or {}).get("title")]
    said.extend({"role": entry["role"], "content": text_of(entry["content"])} for entry in told)
    return said


def text_of(content: Any) -> str:
    """The plain text of a message. The chat log returns its messages as lists of parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else [content]
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts)


class Reply:
    """The answer so far, with the calculations that the model asked for."""

    def __init__(self) -> None:
        self.text = ""
        self.calculations: list[Calculation] = []
        self.usage: Usage | None = None
        self.finish_reason: str | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.calculations += piece.calculations
        self.usage = piece.usage or self.usage
        self.finish_reason = piece.finish_reason or self.finish_reason

    def shown(self, *, ended: bool = False) -> History:
        notes = [_note(c) for c in self.calculations]
        text = self.text or ("*The model ended its turn without any text.*" if ended else "…")
        return [*notes, {"role": "assistant", "content": text}]


def _note(calculation: Calculation) -> dict[str, Any]:
    told = f"`{calculation.code}` = `{calculation.output}`" if calculation.output else f"`{calculation.code}` has no value"
    return {"role": "assistant", "content": told, "metadata": {"title": "🧮 Calculator", "status": "done"}}


class Clock:
    """Measures an answer: time to the first text, tokens per second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: float | None = None
        self._sent = 0.0

    def tick(self, has_text: bool) -> bool:
        """Note that a piece arrived. True when the page should be updated."""
        now = time.monotonic()
        if has_text and self._first is None:
            self._first = now
        if now - self._sent < SENT_EVERY_S:
            return False
        self._sent = now
        return True

    def line(self, usage: Usage | None = None, finish_reason: str | None = None) -> str:
        took = time.monotonic() - self._began
        if usage is None:
            return f"answering … {took:.1f} s"
        parts = [f"{usage.completion_tokens} tokens", f"{number(usage.completion_tokens / max(took, 1e-6))} tokens/s"]
        parts += [f"first token after {self._first - self._began:.2f} s"] if self._first is not None else []
        parts += [f"{usage.prompt_tokens} in the prompt"]
        parts += ["stopped at the length limit"] if finish_reason == "length" else []
        return " · ".join(parts)
