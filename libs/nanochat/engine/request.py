"""Requests to the engine, the settings of sampling, and the state of each row that is generated."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from nanochat.grammar import Grammar, Matcher

FinishReason = Literal["stop", "length", "cancelled", "error"]  # error: following the grammar exceeded the bounds on work
GREEDY_BELOW = 1e-5  # logits divided by a lower temperature overflow to infinity; the result would be greedy anyway
SAMPLED, FORCED = 1, 0  # mask: the model sampled the token, or the calculator's result forced it


class PromptTooLong(ValueError):
    """The prompt leaves no room for a single token in the model's context."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw tokens. The defaults sample from the model's own distribution.

    - `temperature` 0 takes the most likely token.
    - `top_k` 0, `top_p` 1 and `min_p` 0 exclude no token. `min_p` excludes tokens whose probability is less than this share of
      the highest one.
    - `presence_penalty` and `frequency_penalty` (OpenAI) are subtracted from the logits of tokens already generated, once per
      token or once per occurrence.
    - `repetition_penalty` (CTRL) divides positive logits and multiplies negative ones, for tokens in the prompt or the answer;
      1 is off.
    - `logit_bias` is added to the logits of the tokens that it names.
    - `logprobs` requests the log probability of the drawn token and those of this many most likely tokens.
    - `grammar` excludes all tokens with which the answer would no longer fit it. The answer can only end where it is complete,
      and holds no tool calls.

    Raises ValueError that names the first setting out of range.
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
    grammar: Grammar | None = None

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
    """A prompt and its answers, one row for each. Requests with the same `key` share one turn in the queue."""

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
    """One answer that is being generated.

    `tokens` holds the prompt and the answer so far; the first `cached` of them are in the KV cache, in `blocks`. `masks` has an
    entry for each token of the answer: 1 if the model sampled it, 0 if it is part of the calculator's result.

    On a GPU a step starts before the host has read the tokens of the step before. Then `pending` tokens have been drawn but are not
    in `tokens` yet; the last of them is in `slot` of the device's tokens. What a row draws before it is preempted is lost: `epoch`
    counts its preemptions.
    """

    request: Request
    index: int
    tokens: list[int]
    masks: list[int] = field(default_factory=list)
    cached: int = 0
    blocks: list[int] = field(default_factory=list)
    call: list[int] | None = None  # tokens of the open tool call
    forced: deque[int] = field(default_factory=deque)  # tokens that are forced to come next
    finish: FinishReason | None = None
    draws: Draws | None = None
    pending: int = 0
    slot: int = -1
    epoch: int = 0
    remembered: int = 0  # blocks that later prompts can find
    matcher: Matcher | None = None  # follows the answer if it has a grammar; keeps its place when the row is preempted

    @property
    def made(self) -> Sequence[int]:
        """The tokens of the answer so far."""
        return self.tokens[len(self.request.prompt) :]

    @property
    def uncached(self) -> int:
        """The number of tokens not in the cache yet. With one, the row decodes; with more, its prompt is being read."""
        return len(self.tokens) + self.pending - self.cached

    @property
    def started(self) -> bool:
        """Whether the first token of the answer has been drawn."""
        return bool(self.masks or self.pending)

    @property
    def drawable(self) -> bool:
        """Whether another token may be drawn. One more than the answer may have is: it tells whether the answer was complete."""
        return len(self.masks) + self.pending <= self.request.max_tokens

    @property
    def next_token(self) -> int | None:
        """The next token to compute; None if only the device knows it."""
        if self.cached < len(self.tokens):
            return self.tokens[self.cached]
        return self.forced[0] if self.forced else None

    def draw(self) -> float:
        """The random number in [0, 1) that chooses the next token."""
        if self.draws is None:
            self.draws = Draws(self.request.sampling.seed, self.index)
        return self.draws.at(len(self.masks) + self.pending)


class Draws:
    """The random stream of one row: Philox with key (seed, row). A row's draws do not depend on the rows that run beside it."""

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
    """Log probabilities before any sampling setting: that of the drawn token, and those of the most likely tokens, by token."""

    token: float
    top: dict[int, float]


@dataclass(frozen=True, slots=True)
class Output:
    """The result of one step for one row: a token with its mask, or, as the row's last output, the reason why it finished."""

    row: Row
    token: int | None = None
    mask: int = FORCED
    finish: FinishReason | None = None
    logprobs: Logprobs | None = None
