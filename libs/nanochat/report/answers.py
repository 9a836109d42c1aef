"""A model's answer as parts: what it said, the calls of the calculator, and their results."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from nanochat.report import cells

TEXT = 1200  # characters of an answer that are shown

Kind = Literal["text", "call", "result"]
_MARK = re.compile(
    r"<\|(python_start|python_end|output_start|output_end|assistant_start|assistant_end|user_start|user_end|bos)\|>"
)
_OPENS: dict[str, Kind] = {"python_start": "call", "output_start": "result"}


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an answer."""

    kind: Kind
    text: str


def parts(answer: str) -> list[Part]:
    """Split an answer at the marks of tool calls. A call that is not closed reaches to the next mark; other marks end a part."""
    clipped = cells.clipped(answer, TEXT)
    found: list[Part] = []
    kind: Kind = "text"
    place = 0
    for mark in _MARK.finditer(clipped):
        _add(found, kind, clipped[place : mark.start()])
        kind, place = _OPENS.get(mark[1], "text"), mark.end()
    _add(found, kind, clipped[place:])
    return found


def _add(found: list[Part], kind: Kind, text: str) -> None:
    if text.strip() or (text and kind != "text"):
        found.append(Part(kind, text))
