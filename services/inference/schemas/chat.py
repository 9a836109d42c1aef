"""The body of POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from services.inference.schemas.body import wrong
from services.inference.schemas.messages import MessagesBody
from services.inference.schemas.sampling import MAX_TOP_LOGPROBS, SamplingParams
from services.inference.schemas.tools import ToolParams
from services.inference.schemas.unsupported import CHAT, without_unsupported


class ChatRequest(MessagesBody, ToolParams, SamplingParams):
    max_completion_tokens: int | None = Field(default=None, gt=0, description="newer name of max_tokens")
    logprobs: bool | None = Field(default=None, description="report the log probability of each token")
    top_logprobs: int | None = Field(
        default=None, ge=0, le=MAX_TOP_LOGPROBS, description="report that many of the likeliest tokens too"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, body: Any) -> Any:
        return without_unsupported(body, CHAT)

    @model_validator(mode="after")
    def _chat_fits_together(self) -> Self:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise wrong("max_tokens", "max_tokens and max_completion_tokens differ; give only one of them")
        if self.top_logprobs and not self.logprobs:
            raise wrong("top_logprobs", "top_logprobs needs logprobs: true")
        for param, given in (("stop", self.stops), ("stop_token_ids", self.stop_token_ids)):
            if self.functions and given:
                raise wrong(param, f"{param} and a call of a tool exclude each other: a cut call has no use")
        return self

    @property
    def lengths(self) -> dict[str, int | None]:
        return {"max_tokens": self.max_tokens, "max_completion_tokens": self.max_completion_tokens}

    @property
    def answer_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def top_logprobs_count(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None
