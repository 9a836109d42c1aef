"""Turns tokens into the text of an answer: whole characters, no special tokens, cut at the first stop text.

The code that the model sends to the calculator, and the calculator's result, are not part of the text. They become tool calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from nanochat.engine.request import FORCED, SAMPLED, Logprobs
from nanochat.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One use of the calculator. `output` is empty if there was no result."""

    code: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of the text with its log probability and the most likely tokens in its place.

    A prompt's first token has no log probability, because nothing is before it.
    """

    token: int
    logprobs: Logprobs | None


@dataclass(slots=True)
class Delta:
    """The effect of one token: new text, tool calls that are now complete, the scored tokens that the new text begins.

    `call` is the name of the client's function that the answer calls, told once; `arguments` is text like `text`.
    """

    text: str = ""
    tools: list[ToolCall] = field(default_factory=list)
    scored: list[ScoredToken] = field(default_factory=list)
    call: str = ""
    arguments: str = ""

    @property
    def only_text(self) -> bool:
        return not (self.tools or self.scored or self.call or self.arguments)

    def __add__(self, other: Delta) -> Delta:
        return Delta(
            self.text + other.text,
            self.tools + other.tools,
            self.scored + other.scored,
            self.call + other.call,
            self.arguments + other.arguments,
        )


class AnswerText:
    """The text of one answer. `push` its tokens in order until `finished`, then `flush` once.

    Only forced tokens are a result of the calculator. An output span that the model itself sampled is text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), stop_ids: Collection[int] = ()):
        self._decoder = tokenizer.stream_decoder()
        self._tokenizer = tokenizer
        self._stops = StopTexts(stops)
        self._call: list[int] | None = None  # tokens of the open code span
        self._output: list[int] = []  # tokens of the calculator's result so far
        self._code: str | None = None  # the last code span, while its output has not come yet
        self._scores = _Scores(tokenizer)
        self._ends = {tokenizer.special("<|assistant_end|>"), tokenizer.bos, *stop_ids}
        self._start, self._end, self._output_start, self._output_end = (
            tokenizer.special(f"<|{name}|>") for name in ("python_start", "python_end", "output_start", "output_end")
        )
        hidden = ("<|user_start|>", "<|user_end|>", "<|assistant_start|>")
        self._hidden = {self._end, self._output_start, self._output_end, *map(tokenizer.special, hidden)}
        self._special = {*self._ends, *self._hidden, self._start}
        self._plain = not stops
        self.finished = False

    def push(self, token: int, mask: int = SAMPLED, logprobs: Logprobs | None = None) -> Delta:
        if (
            self._plain
            and mask
            and logprobs is None
            and token not in self._special
            and self._call is None
            and self._code is None
        ):
            return Delta(self._decoder.push(token))  # nearly all tokens: nothing below would change anything
        if mask == FORCED:
            return self._forced(token)
        delta = Delta(tools=self._unanswered())
        if token in self._ends:
            self.finished = True
        elif token == self._start:
            self._call = []
        elif self._call is not None and token == self._end:
            self._code, self._call = self._tokenizer.decode(self._call), None
        elif self._call is not None:
            self._call.append(token)
        elif token not in self._hidden:
            self._scores.push(token, logprobs)
            delta += self._show(self._decoder.push(token))
        return delta

    def flush(self) -> Delta:
        """Everything held back: an incomplete character, the possible beginning of a stop text, a call without a result."""
        delta = Delta(tools=self._unanswered())
        if not self._stops.hit:
            delta += self._show(self._decoder.finish())
            rest = self._stops.rest()
            delta += Delta(rest, scored=self._scores.all())
        return delta

    def _forced(self, token: int) -> Delta:
        if token == self._output_start:
            self._output = []
        elif token == self._output_end:
            call, self._code = ToolCall(self._code or "", self._tokenizer.decode(self._output)), None
            return Delta(tools=[call])
        else:
            self._output.append(token)
        return Delta()

    def _unanswered(self) -> list[ToolCall]:
        code, self._code = self._code, None
        return [] if code is None else [ToolCall(code)]

    def _show(self, text: str) -> Delta:
        shown = self._stops.push(text)
        self.finished = self.finished or self._stops.hit
        return Delta(shown, scored=self._scores.shown(shown))


class MarkedText:
    """The text of one answer with the names of special tokens in it, as nanochat's own web server streams it."""

    def __init__(self, tokenizer: Tokenizer):
        self._decoder = tokenizer.stream_decoder()
        self._ends = {tokenizer.special("<|assistant_end|>"), tokenizer.bos}
        self.finished = False

    def push(self, token: int, mask: int = SAMPLED, logprobs: Logprobs | None = None) -> Delta:
        self.finished = mask == SAMPLED and token in self._ends
        return Delta() if self.finished else Delta(self._decoder.push(token))

    def flush(self) -> Delta:
        return Delta(self._decoder.finish())


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


class _Scores:
    """Holds scored tokens back until the text shows their first byte, so that a stop text cuts both at the same place."""

    def __init__(self, tokenizer: Tokenizer):
        self._bytes = tokenizer.bpe.token_bytes
        self._held: deque[tuple[int, ScoredToken]] = deque()  # with the offset of the token's first byte in the text
        self._pushed, self._shown = 0, 0

    def push(self, token: int, logprobs: Logprobs | None) -> None:
        if logprobs is not None:
            self._held.append((self._pushed, ScoredToken(token, logprobs)))
            self._pushed += len(self._bytes(token))

    def shown(self, text: str) -> list[ScoredToken]:
        self._shown += len(text.encode()) if self._held else 0
        return self._taken(self._shown)

    def all(self) -> list[ScoredToken]:
        return self._taken(self._pushed)

    def _taken(self, end: int) -> list[ScoredToken]:
        taken = []
        while self._held and self._held[0][0] < end:
            taken.append(self._held.popleft()[1])
        return taken
