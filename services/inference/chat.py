"""POST /v1/chat/completions, as one JSON document or as server-sent events. If the client disconnects, generation stops."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from services.inference.calls import CallText
from services.inference.generation import Choice, Generation, Piece, admit
from services.inference.json_route import JsonRoute
from services.inference.logprobs import chat_logprobs
from services.inference.prompts import beside, chat_prompt, kept
from services.inference.schemas.chat import ChatRequest
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
from services.inference.text import Delta, ScoredToken

router = APIRouter(prefix="/v1", route_class=JsonRoute)


@router.post("/chat/completions", response_model=None, responses=JSON_OR_EVENTS)
async def complete(body: ChatRequest, request: Request, state: CurrentState) -> Response:
    """Answer a conversation, in OpenAI's format. A parameter that is not implemented is refused by name."""
    state.limits.check_messages(body.messages)
    state.limits.check_sampling(body)
    loaded = await state.registry.get(body.model)
    await state.grammars.check(body)
    prompt = await beside(body.chars, chat_prompt, body, loaded.tokenizer, kept(body, loaded.context))
    functions = [function.name for function in body.functions]
    text = (lambda: CallText(loaded.tokenizer, functions)) if functions else None
    generation = admit(body, [prompt], loaded, state, text=text)
    if body.stream:
        chunks = _ChatChunks(body, generation, head("chatcmpl", "chat.completion.chunk", loaded))
        return GenerationStream(generation, chunks.events())
    return await unless_gone(request, _whole(body, generation))


async def _whole(body: ChatRequest, generation: Generation) -> Response:
    answers = await collected(generation)
    return await written(answers, lambda: _document(body, generation, answers))


def _document(body: ChatRequest, generation: Generation, answers: Sequence[tuple[Delta, str]]) -> dict[str, Any]:
    choices = [
        {
            "index": i,
            "message": _message(delta),
            "logprobs": chat_logprobs(delta.scored, generation.loaded.tokenizer) if body.logprobs else None,
            "finish_reason": _finish_reason(body, reason),
        }
        for i, (delta, reason) in enumerate(answers)
    ]
    first = head("chatcmpl", "chat.completion", generation.loaded)
    return {**first, "choices": choices, "usage": generation.usage.dump()}


def _message(delta: Delta) -> dict[str, Any]:
    message = {"role": "assistant", "content": delta.text, "refusal": None, **calculator(delta.tools)}
    return message | {"content": None, "tool_calls": [_called(delta)]} if delta.call else message


def _called(delta: Delta) -> dict[str, Any]:
    function = {"name": delta.call, "arguments": delta.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _finish_reason(body: ChatRequest, reason: str | None) -> str | None:
    return "tool_calls" if body.functions and reason == "stop" else reason


class _ChatChunks(Chunks):
    """First the role, then the text or the call, then the finish reason."""

    def __init__(self, body: ChatRequest, generation: Generation, first: dict[str, Any]):
        super().__init__(body, generation, first)
        self._body = body

    def opening(self, choice: Choice) -> dict[str, Any]:
        return self._choice(choice.index, {"role": "assistant", "content": ""})

    def text(self, index: int, text: str) -> dict[str, Any]:
        return self._choice(index, {"content": text})

    def choices(self, piece: Piece) -> list[dict[str, Any]]:
        delta, reason = piece.delta, _finish_reason(self._body, piece.finish_reason)
        new = {**({"content": delta.text} if delta.text else {}), **self.calculator(piece)}
        if delta.call:
            new["tool_calls"] = [{"index": 0, **_called(delta)}]
        elif delta.arguments:
            new["tool_calls"] = [{"index": 0, "function": {"arguments": delta.arguments}}]
        choices = [self._choice(piece.index, new, delta.scored)] if new or delta.scored else []
        return choices + ([self._choice(piece.index, {}, reason=reason)] if reason else [])

    def _choice(
        self, index: int, delta: dict[str, Any], scored: Sequence[ScoredToken] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = chat_logprobs(scored, self._generation.loaded.tokenizer) if scored else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
