"""POST /v1/chat/completions, as one JSON document or as server-sent events. If the client disconnects, generation stops."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from services.inference.errors import ApiError
from services.inference.generation import Generation, Piece, admit
from services.inference.json_route import JsonRoute
from services.inference.logprobs import chat_logprobs
from services.inference.prompts import chat_prompt, kept
from services.inference.registry import Loaded
from services.inference.schemas.chat import ChatRequest
from services.inference.state import CurrentState, require_key
from services.inference.streaming import DONE, GenerationStream, event, unless_gone
from services.inference.text import Delta, ScoredToken, ToolCall

router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)], route_class=JsonRoute)


@router.post("/chat/completions", response_model=None)
async def complete(body: ChatRequest, request: Request, state: CurrentState) -> Response:
    """Answer a conversation, in OpenAI's format. A parameter that is not implemented is refused by name."""
    state.limits.check_messages(body.messages)
    state.limits.check_sampling(body)
    loaded = await state.registry.get(body.model)
    prompt = await asyncio.to_thread(chat_prompt, body, loaded.tokenizer, kept(body, loaded.context))
    generation = admit(body, [prompt], loaded, state.engines, state.metrics)
    if body.stream:
        return GenerationStream(generation, _Chunks(body, generation).events())
    return await unless_gone(request, _whole(body, generation))


def head(prefix: str, loaded: Loaded) -> dict[str, Any]:
    """The fields that every answer and every chunk of a stream begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": loaded.entry.id,
        "system_fingerprint": f"fp_{loaded.entry.model.sha256[:12]}",
    }


async def collected(generation: Generation) -> tuple[list[Delta], list[str]]:
    """The whole answers and their finish reasons."""
    n = len(generation.choices)
    deltas, reasons = [Delta() for _ in range(n)], ["stop"] * n
    async with aclosing(generation.pieces()) as pieces:
        async for piece in pieces:
            deltas[piece.index] += piece.delta
            reasons[piece.index] = piece.finish_reason or reasons[piece.index]
    return deltas, reasons


async def _whole(body: ChatRequest, generation: Generation) -> Response:
    deltas, reasons = await collected(generation)
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": delta.text, "refusal": None, **_tool_field(delta.tools)},
            "logprobs": chat_logprobs(delta.scored, generation.loaded.tokenizer) if body.logprobs else None,
            "finish_reason": reason,
        }
        for i, (delta, reason) in enumerate(zip(deltas, reasons, strict=True))
    ]
    first = head("chatcmpl", generation.loaded)
    return JSONResponse({**first, "object": "chat.completion", "choices": choices, "usage": generation.usage.dump()})


class _Chunks:
    """The chunks: first the roles, then the text, then the finish reason of each choice, and the usage if it was asked for."""

    def __init__(self, body: ChatRequest, generation: Generation):
        self._body, self._generation = body, generation
        self._head = {**head("chatcmpl", generation.loaded), "object": "chat.completion.chunk"}
        self._calls = [0] * len(generation.choices)  # calculator calls told so far

    async def events(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._generation.pieces()) as pieces:
                for choice in self._generation.choices:
                    yield self._chunk(choice.index, {"role": "assistant", "content": ""})
                async for piece in pieces:
                    for chunk in self._of(piece):
                        yield chunk
            if self._body.include_usage:
                yield event({**self._head, "choices": [], "usage": self._generation.usage.dump()})
        except ApiError as err:  # too late for an error status: the headers were sent with the first event
            yield event(err.body())
        yield DONE

    def _of(self, piece: Piece) -> list[bytes]:
        delta = piece.delta
        new: dict[str, Any] = {"content": delta.text} if delta.text else {}
        new |= _tool_field(delta.tools, self._calls[piece.index])
        self._calls[piece.index] += len(delta.tools)
        chunks = [self._chunk(piece.index, new, delta.scored)] if new or delta.scored else []
        return chunks + ([self._chunk(piece.index, {}, reason=piece.finish_reason)] if piece.finish_reason else [])

    def _chunk(self, index: int, delta: dict[str, Any], scored: Sequence[ScoredToken] = (), reason: str | None = None) -> bytes:
        logprobs = chat_logprobs(scored, self._generation.loaded.tokenizer) if scored else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return event({**self._head, "choices": [choice], **usage_so_far(self._body, self._generation)})


def usage_so_far(body: ChatRequest, generation: Generation) -> dict[str, Any]:
    """The field `usage` of a chunk with text: absent, null because it comes in the last chunk, or the counts so far."""
    if body.continuous_usage:
        return {"usage": generation.usage.dump()}
    return {"usage": None} if body.include_usage else {}


def _tool_field(tools: Sequence[ToolCall], before: int = 0) -> dict[str, Any]:
    """The calculator's calls and results. They are not `tool_calls`, because the client has nothing to run or to answer.

    Each entry has an `index`, which OpenAI's clients need to join the lists of several chunks.
    """
    entries = [{"index": before + i, "code": tool.code, "output": tool.output} for i, tool in enumerate(tools)]
    return {"calculator": entries} if entries else {}
