"""What an engine is asked for, and the state of each row that it generates."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FinishReason = Literal["stop", "length", "cancelled"]
GREEDY_BELOW = 1e-5  # a lower temperature divides logits into infinities; the result is greedy anyway
SAMPLED, FORCED = 1, 0


class PromptTooLong(ValueError):
    """The prompt leaves no room in the model's context for even one token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. The defaults sample from the model's own distribution.

    temperature 0 takes the likeliest token. top_k 0, top_p 1 and min_p 0 leave every token in; min_p drops tokens less
    likely than that share of the likeliest one. The penalties are OpenAI's (presence, frequency: subtracted from the logits of
    tokens already generated) and CTRL's (repetition: divides positive logits and multiplies negative ones of tokens in prompt
    or answer; 1 is off). `logit_bias` is added to the logits of the tokens that it names. `logprobs` asks for the log
    probabilities of the drawn token and of that many likeliest ones. Raises ValueError naming the first that is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        for name, value, fits, wanted in (
            ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
            ("top_k", self.top_k, self.top_k >= 0, "0 (off) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1"),
            ("presence_penalty", self.presence_penalty, True, "a finite number"),
            ("frequency_penalty", self.frequency_penalty, True, "a finite number"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
        ):
            if not (fits and math.isfinite(value)):
                raise ValueError(f"{name} must be {wanted}, not {value}")
        if not all(math.isfinite(bias) for bias in self.logit_bias.values()):
            raise ValueError("logit_bias must hold finite numbers")

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def changes_logits(self) -> bool:
        penalties = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        return bool(penalties or self.logit_bias)


@dataclass(eq=False, slots=True)
class Request:
    """`n` answers to one prompt. Requests with the same `key` share one turn in the queue."""

    prompt: list[int]
    sampling: Sampling
    max_tokens: int
    key: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return all(row.finish for row in self.rows)


@dataclass(eq=False, slots=True)
class Row:
    """One answer in the making. `tokens` is the prompt and what follows; the cache holds the first `cached` of them.

    `masks` says of each token after the prompt whether the model sampled it (1) or the calculator put it there (0).
    """

    request: Request
    index: int
    tokens: list[int]
    masks: list[int] = field(default_factory=list)
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    call: list[int] | None = None  # tokens of the open tool call
    forced: deque[int] = field(default_factory=deque)  # tokens that must come next
    finish: FinishReason | None = None
    draws: Draws | None = None

    @property
    def made(self) -> Sequence[int]:
        """The tokens after the prompt."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def uncached(self) -> int:
        """Tokens that the model has yet to see. One of them: the row decodes; more: its prompt is being read."""
        return len(self.tokens) - self.cached

    def draw(self) -> float:
        """The uniform number for the next token, in [0, 1)."""
        if self.draws is None:
            self.draws = Draws(self.request.sampling.seed, self.index)
        return self.draws.at(len(self.masks))


class Draws:
    """The random stream of one row: Philox keyed by (seed, row), so a row draws the same whatever else runs beside it."""

    def __init__(self, seed: int, row: int):
        key = np.array((seed % 2**64, row), dtype=np.uint64)
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._drawn = np.empty(0, np.float32)

    def at(self, step: int) -> float:
        while step >= len(self._drawn):
            self._drawn = np.concatenate((self._drawn, self._generator.random(64, np.float32)))
        return float(self._drawn[step])


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities before any sampling setting: of the drawn token, and of the likeliest ones by token."""

    token: float
    top: dict[int, float]


@dataclass(frozen=True, slots=True)
class Output:
    """What one step did to one row: a token with its mask, or (once, last) why the row finished."""

    row: Row
    token: int | None = None
    mask: int = FORCED
    finish: FinishReason | None = None
    logprobs: Logprobs | None = None
