"""The body of POST /chat/completions, the route of nanochat's own web server."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, Field, model_validator

from services.inference.schemas.body import wrong
from services.inference.schemas.chat import ChatRequest


class SeedRequest(ChatRequest):
    """Its defaults are nanochat's. Fields that it does not know are ignored. The answer is always a stream."""

    model_config = ConfigDict(extra="ignore")

    temperature: float | None = Field(default=0.8, ge=0)
    top_k: int | None = Field(default=50, ge=1)
    max_tokens: int | None = Field(default=512, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, body: Any) -> Any:
        return {name: value for name, value in body.items() if value is not None} if isinstance(body, dict) else body

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if self.n not in (None, 1):
            raise wrong("n", "this route sends one answer; /v1/chat/completions sends several")
        return self
