"""POST /v1/completions: continue texts or tokens, as one JSON document or as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from nanochat.tokenizer import Tokenizer
from services.inference.errors import ApiError
from services.inference.generation import Choice, Generation, Piece, admit
from services.inference.json_route import JsonRoute
from services.inference.limits import Limits
from services.inference.logprobs import completion_logprobs
from services.inference.prompts import check_token_ids, kept, text_prompt, truncated
from services.inference.registry import Loaded
from services.inference.schemas.completion import CompletionRequest
from services.inference.state import CurrentState
from services.inference.streaming import JSON_OR_EVENTS, Chunks, GenerationStream, calculator, collected, head, unless_gone
from services.inference.text import Delta

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/completions", response_model=None, responses=JSON_OR_EVENTS)
async def complete(body: CompletionRequest, request: Request, state: CurrentState) -> Response:
    """Continue each prompt. The choices of prompt i are those with index i * n to i * n + n - 1."""
    _check(body, state.limits)
    loaded = await state.registry.get(body.model)
    await state.grammars.check(body)
    prompts = await asyncio.to_thread(_prompts, body, loaded)
    generation = admit(body, prompts, loaded, state, param="prompt")
    echoes = _echoes(body, loaded.tokenizer)
    first = head("cmpl", "text_completion", loaded)
    if body.stream:
        return GenerationStream(generation, _TextChunks(body, generation, first, echoes).events())
    return await unless_gone(request, _whole(body, generation, first, echoes))


def _check(body: CompletionRequest, limits: Limits) -> None:
    limits.check_sampling(body)
    if len(body.prompts) > limits.prompts:
        message = f"prompt: at most {limits.prompts} prompts are allowed on this server, not {len(body.prompts)}."
        raise ApiError(400, message, param="prompt", code="invalid_value")
    limits.check_chars("prompt", sum(len(prompt) for prompt in body.prompts if isinstance(prompt, str)))


def _prompts(body: CompletionRequest, loaded: Loaded) -> list[list[int]]:
    tokenizer, keep = loaded.tokenizer, kept(body, loaded.context)
    prompts = []
    for prompt in body.prompts:
        if isinstance(prompt, str):
            tokens = text_prompt(prompt, tokenizer) if body.add_special_tokens else tokenizer.encode(prompt)
        else:
            check_token_ids(prompt, tokenizer.vocab_size, "prompt")
            tokens = prompt
        prompts.append(truncated(tokens, tokenizer, keep))
    return prompts


def _echoes(body: CompletionRequest, tokenizer: Tokenizer) -> list[str]:
    """The text that each choice begins with."""
    texts = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in body.prompts] if body.echo else []
    n = body.n or 1
    return [text for text in texts for _ in range(n)] or [""] * (len(body.prompts) * n)


async def _whole(body: CompletionRequest, generation: Generation, first: dict[str, Any], echoes: Sequence[str]) -> Response:
    tokenizer = generation.loaded.tokenizer
    choices = [
        {
            "index": i,
            "text": echoes[i] + delta.text,
            "logprobs": None if body.logprobs is None else completion_logprobs(delta.scored, tokenizer, 0),
            "finish_reason": reason,
            **calculator(delta.tools),
        }
        for i, (delta, reason) in enumerate(await collected(generation))
    ]
    return JSONResponse({**first, "choices": choices, "usage": generation.usage.dump()})


class _TextChunks(Chunks):
    """The prompt if it is echoed, then the text; the last chunk of a choice has its finish reason."""

    def __init__(self, body: CompletionRequest, generation: Generation, first: dict[str, Any], echoes: Sequence[str]):
        super().__init__(body, generation, first)
        self._echoes, self._chars = echoes, [0] * len(echoes)

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        echo = self._echoes[choice.index]
        return self._choice(Piece(choice.index, Delta(echo))) if echo else None

    def choices(self, piece: Piece) -> list[dict[str, Any]]:
        delta = piece.delta
        if not (delta.text or delta.tools or delta.scored or piece.finish_reason):
            return []
        choice = {**self._choice(piece), **self.calculator(piece)}
        self._chars[piece.index] += len(delta.text)
        return [choice]

    def _choice(self, piece: Piece) -> dict[str, Any]:
        tokenizer, scored = self._generation.loaded.tokenizer, piece.delta.scored
        logprobs = completion_logprobs(scored, tokenizer, self._chars[piece.index]) if scored else None
        return {"index": piece.index, "text": piece.delta.text, "logprobs": logprobs, "finish_reason": piece.finish_reason}
