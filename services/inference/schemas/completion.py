"""The body of POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_validator

from services.inference.schemas.body import wrong
from services.inference.schemas.sampling import MAX_TOP_LOGPROBS, SamplingParams, TokenId
from services.inference.schemas.unsupported import COMPLETION, without_unsupported

ANSWER_TOKENS = 16  # OpenAI's default for this route
Tokens = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


def _kind(prompt: Any) -> str:
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else ""
    return "<tokens>" if isinstance(first, int) else "<token-lists>" if isinstance(first, list) else "<texts>"


Prompt = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[str], Tag("<texts>"), Field(min_length=1, fail_fast=True)]
    | Annotated[Tokens, Tag("<tokens>")]
    | Annotated[list[Tokens], Tag("<token-lists>"), Field(fail_fast=True)],
    Discriminator(_kind),
]


class CompletionRequest(SamplingParams):
    prompt: Prompt = Field(description="a text, a list of texts, token ids, or a list of lists of token ids")
    max_tokens: int | None = Field(
        default=None,
        ge=0,
        description=f"longest answer in tokens; null: {ANSWER_TOKENS}; 0: only read the prompt, as for its logprobs",
    )
    echo: bool | None = Field(default=None, description="begin each answer's text with its prompt")
    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MAX_TOP_LOGPROBS,
        description="report the log probability of each token and that many of the likeliest",
    )
    add_special_tokens: bool = Field(default=True, description="put <|bos|> before a text, as before a document in training")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_done(cls, body: Any) -> Any:
        return without_unsupported(body, COMPLETION)

    @model_validator(mode="after")
    def _completion_fits_together(self) -> Self:
        if self.scores_prompt and self.stream:
            raise wrong("stream", "log probabilities of an echoed prompt are not streamed; leave out echo, logprobs or stream")
        if self.max_tokens == 0 and self.stream:
            raise wrong("max_tokens", "a stream of no tokens is nothing; leave out stream or ask for at least one token")
        if not self.add_special_tokens and not all(self.prompts):
            raise wrong("prompt", "an empty text without <|bos|> is no prompt")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        match self.prompt:
            case str(text):
                return [text]
            case [int(), *_] as tokens:
                return [tokens]  # type: ignore[list-item]
            case several:
                return list(several)  # type: ignore[arg-type]

    @property
    def answer_tokens(self) -> int | None:
        return ANSWER_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def scores_prompt(self) -> bool:
        return bool(self.echo) and self.logprobs is not None

    @property
    def top_logprobs_count(self) -> int | None:
        return self.logprobs
