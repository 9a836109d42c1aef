"""The parameters of chat and text completions alike: how tokens are drawn, when the answer ends, how it is sent."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, model_validator

from services.inference.schemas.body import Body, wrong
from services.inference.schemas.structured import Structured
from services.inference.schemas.unsupported import NoEffect

MAX_STOPS = 4
MAX_STOP_CHARS = 1_000  # every new piece of text is compared with the beginnings of the stop texts
MAX_BIAS = 100.0
MAX_BIASED = 1_024  # tokens with a bias; they are looked up for every token of the answer
MAX_TOP_LOGPROBS = 20
TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")  # one spelling of each; any Unicode digit would pass str.isdecimal

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(Body):
    include_usage: bool = Field(default=False, description="a last chunk with the token counts")
    continuous_usage_stats: bool = Field(default=False, description="the token counts so far in each chunk")


class SamplingParams(Structured, NoEffect):
    """The defaults are OpenAI's. `top_k`, `min_p`, `repetition_penalty`, `stop_token_ids` and `truncate_prompt_tokens` are vLLM's."""

    model: str | None = Field(
        default=None, description="id of a model, see GET /v1/models; null or `default`: the server's default"
    )
    temperature: float | None = Field(default=None, ge=0, description="null: 1; below 0.00001 the likeliest token is taken")
    top_p: float | None = Field(default=None, gt=0, le=1, description="null: 1")
    top_k: int | None = Field(default=None, ge=-1, description="null, 0 or -1: off")
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="excludes tokens less likely than this share of the likeliest one; null: 0"
    )
    frequency_penalty: Penalty | None = Field(
        default=None, description="subtracted for each earlier use in the answer; null: 0"
    )
    presence_penalty: Penalty | None = Field(
        default=None, description="subtracted once for a token used in the answer; null: 0"
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="divides the logits of tokens in the prompt or the answer; null: 1, which is off",
    )
    logit_bias: dict[str, Annotated[float, Field(ge=-MAX_BIAS, le=MAX_BIAS)]] | None = Field(
        default=None, max_length=MAX_BIASED, description="token id -> number that is added to its logit"
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64, description="null: a random one for each request")
    max_tokens: int | None = Field(default=None, gt=0, description="longest answer in tokens")
    n: int | None = Field(default=None, ge=1, description="answers to each prompt; null: 1")
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = Field(
        default=None, description=f"up to {MAX_STOPS} texts that end the answer"
    )
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=64, description="tokens that end the answer")
    truncate_prompt_tokens: int | None = Field(
        default=None,
        ge=-1,
        lt=2**31,
        description="leaves out the beginning of a prompt that is longer; -1: as much as the context and max_tokens allow",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.stream_options and not self.stream:
            raise wrong("stream_options", "stream_options needs stream: true")
        if len(self.stops) > MAX_STOPS or not all(self.stops):
            raise wrong("stop", f"stop takes up to {MAX_STOPS} texts, and none may be empty")
        if any(len(stop) > MAX_STOP_CHARS for stop in self.stops):
            raise wrong("stop", f"a stop text may have {MAX_STOP_CHARS} characters")
        for token in self.logit_bias or ():
            if not TOKEN_ID.fullmatch(token):
                raise wrong("logit_bias", f"logit_bias takes token ids as keys, not {token!r}; see POST /tokenize")
        if self.truncate_prompt_tokens == 0:
            raise wrong("truncate_prompt_tokens", "truncate_prompt_tokens must be at least 1, or -1 for all that fits")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def lengths(self) -> dict[str, int | None]:
        """The parameters that limit the answer's length."""
        return {"max_tokens": self.max_tokens}

    @property
    def answer_tokens(self) -> int | None:
        """The longest answer in tokens; None: up to the end of the context."""
        return self.max_tokens

    @property
    def top_logprobs_count(self) -> int | None:
        """How many of the likeliest tokens to report beside each token; None: no log probabilities."""
        return None

    @property
    def scores_prompt(self) -> bool:
        """Whether to report the log probabilities of the prompt too."""
        return False

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats
