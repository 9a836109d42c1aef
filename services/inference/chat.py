"""POST /v1/chat/completions, as one JSON document or as server-sent events. If the client disconnects, generation stops."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from services.inference.errors import ApiError
from services.inference.generation import Generation, Piece, admit
from services.inference.schemas import ChatRequest
from services.inference.state import CurrentState, require_key
from services.inference.text import ToolCall

router = APIRouter(prefix="/v1", dependencies=[Depends(require_key)])
CLIENT_CLOSED = 499  # nginx's status for a client that disconnected; only logs show it


@router.post("/chat/completions", response_model=None)
async def complete(body: ChatRequest, request: Request, state: CurrentState) -> Response:
    """Answer a conversation, in OpenAI's format. A parameter that is not implemented is refused by name."""
    loaded = await state.registry.get(body.model)
    generation = await admit(body, loaded, state.engines, state.metrics)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": loaded.entry.id,
        "system_fingerprint": f"fp_{loaded.entry.model.sha256[:12]}",
    }
    if body.stream:
        with_usage = body.stream_options is not None and body.stream_options.include_usage
        return GenerationStream(generation, _events(generation, head, with_usage))
    return await _unless_gone(request, _whole(generation, head))


class GenerationStream(EventSourceResponse):
    """Streams the events of a generation. The generation stops when the response ends, even if nothing was sent yet."""

    def __init__(self, generation: Generation, events: AsyncGenerator[bytes]):
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, headers=headers)
        self._generation, self._events = generation, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
            self._generation.request.cancel()  # `finally` does not run in a generator that never started


async def _whole(generation: Generation, head: dict[str, Any]) -> Response:
    n = len(generation.choices)
    texts, reasons = [""] * n, ["stop"] * n
    tools: list[list[ToolCall]] = [[] for _ in range(n)]
    async with aclosing(generation.pieces()) as pieces:
        async for piece in pieces:
            texts[piece.index] += piece.delta.text
            tools[piece.index] += piece.delta.tools
            reasons[piece.index] = piece.finish_reason or reasons[piece.index]
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": texts[i], "refusal": None, **_tool_field(tools[i])},
            "logprobs": None,
            "finish_reason": reasons[i],
        }
        for i in range(n)
    ]
    return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": generation.usage.dump()})


async def _events(generation: Generation, head: dict[str, Any], with_usage: bool) -> AsyncGenerator[bytes]:
    """The chunks: first the roles, then the text, then the finish reason of each choice, and the usage if it was asked for."""
    head = {**head, "object": "chat.completion.chunk"}
    usage = {"usage": None} if with_usage else {}
    try:
        async with aclosing(generation.pieces()) as pieces:
            for choice in generation.choices:
                yield _data({**head, "choices": [_delta(choice.index, {"role": "assistant", "content": ""})], **usage})
            async for piece in pieces:
                for delta in _deltas(piece):
                    yield _data({**head, "choices": [delta], **usage})
        if with_usage:
            yield _data({**head, "choices": [], "usage": generation.usage.dump()})
    except ApiError as err:  # too late for an error status: the headers were sent with the first event
        yield _data(err.body())
    yield format_sse_event(data_str="[DONE]")


def _deltas(piece: Piece) -> list[dict[str, Any]]:
    new = {**({"content": piece.delta.text} if piece.delta.text else {}), **_tool_field(piece.delta.tools)}
    deltas = [_delta(piece.index, new)] if new else []
    return deltas + ([_delta(piece.index, {}, piece.finish_reason)] if piece.finish_reason else [])


def _delta(index: int, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _tool_field(tools: list[ToolCall]) -> dict[str, Any]:
    """The calculator's calls and results. They are not `tool_calls`, because the client has nothing to run or to answer."""
    return {"calculator": [{"code": t.code, "output": t.output} for t in tools]} if tools else {}


def _data(value: dict[str, Any]) -> bytes:
    return format_sse_event(data_str=json.dumps(value, ensure_ascii=False))


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer, or an empty response as soon as the client disconnects."""
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return Response(status_code=CLIENT_CLOSED)
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
