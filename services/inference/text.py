"""Turns tokens into the text of an answer: whole characters, no special tokens, cut at the first stop text.

The code that the model sends to the calculator, and the result, are not part of the text. They become tool calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One use of the calculator. `output` is empty if there was no result."""

    code: str
    output: str = ""


@dataclass(slots=True)
class Delta:
    """The effect of one token: new text, and tool calls that are now complete."""

    text: str = ""
    tools: list[ToolCall] = field(default_factory=list)


class Span(Enum):
    TEXT = "text"
    CODE = "code"
    OUTPUT = "output"


class AnswerText:
    """The text of one answer. `push` its tokens in order until `finished`, then `flush` once."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()):
        self._decoder = tokenizer.stream_decoder()
        self._tokenizer = tokenizer
        self._stops = StopTexts(stops)
        self._span = Span.TEXT
        self._hidden: list[int] = []  # tokens of the open code or output span
        self._code: str | None = None  # the last code span, while its output has not come yet
        names = ("assistant_end", "bos", "python_start", "python_end", "output_start", "output_end")
        self._names = {tokenizer.special(f"<|{name}|>"): name for name in names}
        self._specials = {tokenizer.special(s) for s in ("<|user_start|>", "<|user_end|>", "<|assistant_start|>")}
        self.finished = False

    def push(self, token: int) -> Delta:
        name = self._names.get(token)
        if name in ("assistant_end", "bos"):
            self.finished = True
            return Delta()
        if name is not None:
            return Delta(tools=self._turn(name))
        if token in self._specials:
            return Delta()
        if self._span is not Span.TEXT:
            self._hidden.append(token)
            return Delta()
        shown = self._show(self._decoder.push(token))
        return Delta(shown, self._unanswered() if shown else [])

    def flush(self) -> Delta:
        """Everything held back: an incomplete character, the possible beginning of a stop text, a call without a result."""
        shown = self._show(self._decoder.finish()) if not self._stops.hit else ""
        return Delta(shown + self._stops.rest(), self._unanswered())

    def _turn(self, name: str) -> list[ToolCall]:
        """Enter or leave a span. Returns the tool calls that this completes."""
        hidden, self._hidden = self._tokenizer.decode(self._hidden), []
        done: list[ToolCall] = []
        if name == "python_end" and self._span is Span.CODE:
            done, self._code = self._unanswered(), hidden
        elif name == "output_end" and self._span is Span.OUTPUT:
            done, self._code = [ToolCall(self._code or "", hidden)], None
        self._span = {"python_start": Span.CODE, "output_start": Span.OUTPUT}.get(name, Span.TEXT)
        return done

    def _unanswered(self) -> list[ToolCall]:
        code, self._code = self._code, None
        return [] if code is None else [ToolCall(code)]

    def _show(self, text: str) -> str:
        shown = self._stops.push(text)
        self.finished = self.finished or self._stops.hit
        return shown


class StopTexts:
    """Cuts the text before the first stop text. Holds back the end of the text while it may be the beginning of one."""

    def __init__(self, stops: Sequence[str]):
        self._stops = tuple(stops)
        self._held = ""
        self.hit = False

    def push(self, text: str) -> str:
        if self.hit:
            return ""
        self._held += text
        found = [i for i in (self._held.find(stop) for stop in self._stops) if i >= 0]
        if found:
            shown, self._held, self.hit = self._held[: min(found)], "", True
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def rest(self) -> str:
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
