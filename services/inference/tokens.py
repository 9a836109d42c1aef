"""POST /tokenize and POST /detokenize, with the fields of vLLM's routes of these names."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Discriminator, Tag

from nanochat.tokenizer import Tokenizer
from services.inference.json_route import JsonRoute
from services.inference.prompts import chat_prompt, check_token_ids, text_prompt
from services.inference.schemas.tokens import DetokenizeRequest, TokenizeChat, TokenizeText, tokenize_kind
from services.inference.state import CurrentState

router = APIRouter(route_class=JsonRoute)

TokenizeRequest = Annotated[
    Annotated[TokenizeText, Tag("<text>")] | Annotated[TokenizeChat, Tag("<chat>")], Discriminator(tokenize_kind)
]


@router.post("/tokenize")
async def tokenize(body: TokenizeRequest, state: CurrentState) -> dict[str, Any]:
    """The tokens of a text or of a conversation, exactly as a completion would read them."""
    if isinstance(body, TokenizeChat):
        state.limits.check_messages(body.messages)
    else:
        state.limits.check_chars("prompt", len(body.prompt))
    loaded = await state.registry.get(body.model)
    tokens, more = await asyncio.to_thread(_tokens, body, loaded.tokenizer)
    return {"count": len(tokens), "max_model_len": loaded.context, "tokens": tokens, **more}


@router.post("/detokenize")
async def detokenize(body: DetokenizeRequest, state: CurrentState) -> dict[str, str]:
    """The text of tokens. Special tokens appear by name; bytes that are not UTF-8 become U+FFFD."""
    loaded = await state.registry.get(body.model)
    check_token_ids(body.tokens, loaded.tokenizer.vocab_size, "tokens")
    return {"prompt": await asyncio.to_thread(loaded.tokenizer.decode, body.tokens)}


def _tokens(body: TokenizeText | TokenizeChat, tokenizer: Tokenizer) -> tuple[list[int], dict[str, list[str]]]:
    """The tokens, and what else was asked for: the text and the bytes of each."""
    if isinstance(body, TokenizeChat):
        tokens = chat_prompt(body, tokenizer)
    else:
        tokens = text_prompt(body.prompt, tokenizer) if body.add_special_tokens else tokenizer.encode(body.prompt)
    more: dict[str, list[str]] = {}
    if body.return_token_strs:
        more["token_strs"] = [tokenizer.decode([token]) for token in tokens]
    if body.return_token_bytes:
        more["token_bytes"] = [tokenizer.bpe.token_bytes(token).hex() for token in tokens]
    return tokens, more
