"""The bodies of POST /tokenize and POST /detokenize. Their fields are vLLM's, and `return_token_bytes`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from services.inference.schemas.body import Body
from services.inference.schemas.messages import MessagesBody
from services.inference.schemas.sampling import TokenId

MAX_TOKENS = 1 << 17


class _Model(Body):
    model: str | None = Field(
        default=None, description="id of a model, see GET /v1/models; null or `default`: the server's default"
    )


class _Reported(_Model):
    return_token_strs: bool | None = Field(default=None, description="report the text of each token too")
    return_token_bytes: bool | None = Field(default=None, description="report the bytes of each token too, in hexadecimal")


class TokenizeText(_Reported):
    prompt: str
    add_special_tokens: bool = Field(default=True, description="put <|bos|> before the text")


class TokenizeChat(MessagesBody, _Reported):
    pass


class DetokenizeRequest(_Model):
    tokens: list[TokenId] = Field(max_length=MAX_TOKENS, fail_fast=True)


def tokenize_kind(body: Any) -> str:
    return "<chat>" if isinstance(body, dict) and "messages" in body else "<text>"
