"""POST /v1/completions: continue texts or tokens, as one JSON document or as server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request, Response

from services.inference.errors import ApiError
from services.inference.generation import Choice, Generation, Piece, admit
from services.inference.json_route import JsonRoute
from services.inference.limits import Limits
from services.inference.logprobs import completion_logprobs
from services.inference.prompts import beside, check_token_ids, kept, text_prompt, truncated
from services.inference.registry import Loaded
from services.inference.schemas.completion import CompletionRequest
from services.inference.state import CurrentState
from services.inference.streaming import (
    JSON_OR_EVENTS,
    Chunks,
    GenerationStream,
    calculator,
    collected,
    head,
    unless_gone,
    written,
)
from services.inference.text import Delta

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/completions", response_model=None, responses=JSON_OR_EVENTS)
async def complete(body: CompletionRequest, request: Request, state: CurrentState) -> Response:
    """Continue each prompt. The choices of prompt i are those with index i * n to i * n + n - 1."""
    _check(body, state.limits)
    loaded = await state.registry.get(body.model)
    await state.grammars.check(body)
    prompts = await beside(sum(map(len, body.prompts)), _prompts, body, loaded)
    generation = admit(body, [prompt.tokens for prompt in prompts], loaded, state, param="prompt")
    first = head("cmpl", "text_completion", loaded)
    if body.stream:
        return GenerationStream(generation, _TextChunks(body, generation, first, prompts).events())
    return await unless_gone(request, _whole(body, generation, first, prompts))


@dataclass(frozen=True, slots=True)
class _Prompt:
    """`added` of its first tokens are not the caller's."""

    tokens: list[int]
    text: str  # of the caller's tokens
    added: int


def _check(body: CompletionRequest, limits: Limits) -> None:
    limits.check_sampling(body)
    if len(body.prompts) > limits.prompts:
        message = f"prompt: at most {limits.prompts} prompts are allowed on this server, not {len(body.prompts)}."
        raise ApiError(400, message, param="prompt", code="invalid_value")
    limits.check_chars("prompt", sum(len(prompt) for prompt in body.prompts if isinstance(prompt, str)))


def _prompts(body: CompletionRequest, loaded: Loaded) -> list[_Prompt]:
    tokenizer, keep = loaded.tokenizer, kept(body, loaded.context)
    prompts = []
    for prompt in body.prompts:
        added = 0
        if not isinstance(prompt, str):
            check_token_ids(prompt, tokenizer.vocab_size, "prompt")
            tokens, text = prompt, tokenizer.decode(prompt) if body.echo else ""
        elif body.add_special_tokens:
            tokens, text, added = text_prompt(prompt, tokenizer), prompt, 1
        else:
            tokens, text = tokenizer.encode(prompt), prompt
        read = truncated(tokens, tokenizer, keep)
        if len(read) < len(tokens):
            added = min(added, int(read[0] == tokenizer.bos))
            text = tokenizer.decode(read[added:])
        prompts.append(_Prompt(read, text, added))
    return prompts


async def _whole(
    body: CompletionRequest, generation: Generation, first: dict[str, Any], prompts: Sequence[_Prompt]
) -> Response:
    answers = await collected(generation)
    return await written(answers, lambda: _document(body, generation, first, prompts, answers))


def _document(
    body: CompletionRequest,
    generation: Generation,
    first: dict[str, Any],
    prompts: Sequence[_Prompt],
    answers: Sequence[tuple[Delta, str]],
) -> dict[str, Any]:
    n, tokenizer = body.n or 1, generation.loaded.tokenizer
    choices = []
    for i, (delta, reason) in enumerate(answers):
        prompt, logprobs = prompts[i // n], None
        if body.logprobs is not None:
            echoed = generation.answers[i // n].prompt[prompt.added :] if body.echo else []
            logprobs = completion_logprobs([*echoed, *delta.scored], tokenizer, 0)
        text = prompt.text + delta.text if body.echo else delta.text
        choice = {"index": i, "text": text, "logprobs": logprobs, "finish_reason": reason, **calculator(delta.tools)}
        choices.append(choice)
    return {**first, "choices": choices, "usage": generation.usage.dump()}


class _TextChunks(Chunks):
    """The prompt if it is echoed, then the text; the last chunk of a choice has its finish reason."""

    def __init__(self, body: CompletionRequest, generation: Generation, first: dict[str, Any], prompts: Sequence[_Prompt]):
        super().__init__(body, generation, first)
        self._body, self._prompts, self._chars = body, prompts, [0] * len(generation.choices)

    def opening(self, choice: Choice) -> dict[str, Any] | None:
        text = self._prompts[choice.index // (self._body.n or 1)].text if self._body.echo else ""
        return self._choice(Piece(choice.index, Delta(text))) if text else None

    def text(self, index: int, text: str) -> dict[str, Any]:
        return self._choice(Piece(index, Delta(text)))

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
