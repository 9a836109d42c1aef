"""What the routes that generate share: whole answers, streams of chunks, and the end of the generation if the client leaves."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from services.inference.engines.request import AT_ONCE
from services.inference.errors import ApiError
from services.inference.generation import Choice, Generation, Piece
from services.inference.registry import Loaded
from services.inference.schemas.sampling import SamplingParams
from services.inference.text import Delta, ToolCall

JSON_OR_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
CLIENT_CLOSED = 499  # nginx's status for a client that disconnected; only logs show it
_ENCODER = msgspec.json.Encoder()  # 8 times as fast as `json.dumps`, and nothing else runs meanwhile
LINE_ENDS = re.compile("[\x85\u2028\u2029]")  # JSON itself escapes the others
MARK = "\0"  # stands for a text
DONE = b"data: [DONE]\n\n"


class GenerationStream(Response):
    """Streams the events of a generation. The generation stops when the response ends, even if nothing was sent yet.

    Starlette's own StreamingResponse makes two tasks and a task group for each answer. Here one callback watches the client.
    """

    media_type = "text/event-stream"

    def __init__(self, generation: Generation, events: AsyncGenerator[bytes]):
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["Content-Length"]
        self._generation, self._events = generation, events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = asyncio.current_task()

        def leave(gone: asyncio.Future[None]) -> None:
            if stream is not None and not gone.cancelled():
                stream.cancel()

        gone = asyncio.ensure_future(disconnected(receive))
        gone.add_done_callback(leave)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for events in self._events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            if not gone.done() or stream is None or stream.uncancel():  # the server stops, whatever the client does
                raise
        finally:
            stream = None
            gone.cancel()
            await self._events.aclose()
            self._generation.cancel()  # `finally` does not run in a generator that never started


class Chunks(ABC):
    """The chunks of one streamed answer. A route says what its choices look like; the rest is the same for all."""

    def __init__(self, params: SamplingParams, generation: Generation, head: dict[str, Any]):
        self._params, self._generation, self._head = params, generation, head
        # All chunks of a stream begin and end alike.
        self._before = b'data: %b,"choices":[' % one_line(head)[:-1]
        self._after = b'],"usage":null}\n\n' if params.include_usage else b"]}\n\n"
        self._texts = self._templates()
        self._calls = [0] * len(generation.choices)  # calculator calls told so far

    @abstractmethod
    def opening(self, choice: Choice) -> dict[str, Any] | None:
        """The choice in the first chunk, which is sent at once."""

    @abstractmethod
    def text(self, index: int, text: str) -> dict[str, Any]:
        """The choice that tells of new text and of nothing else."""

    @abstractmethod
    def choices(self, piece: Piece) -> list[dict[str, Any]]:
        """The choices that tell of a piece, each in a chunk of its own."""

    async def events(self) -> AsyncGenerator[bytes]:
        """The opening of each choice, the pieces, the usage if it was asked for, and `[DONE]`."""
        generation = self._generation
        try:
            async with aclosing(generation.steps()) as steps:
                if opening := [*map(self._chunk, filter(None, map(self.opening, generation.choices)))]:
                    yield b"".join(opening)
                async for pieces in steps:
                    if chunks := b"".join([self._chunks(piece) for piece in pieces]):
                        yield chunks
            if self._params.include_usage:
                yield event({**self._head, "choices": [], "usage": generation.usage.dump()})
        except ApiError as err:  # too late for an error status: the headers were sent with the first event
            yield event(err.body())
        yield DONE

    def _chunks(self, piece: Piece) -> bytes:
        delta = piece.delta
        if self._texts and piece.finish_reason is None and delta.only_text:
            before, after = self._texts[piece.index]
            return b"%b%b%b" % (before, one_line(delta.text), after) if delta.text else b""
        return b"".join(map(self._chunk, self.choices(piece)))

    def _templates(self) -> list[tuple[bytes, bytes]]:
        """What stands before and after a text in the chunk of each choice; empty if something else may change from chunk to chunk."""
        if self._params.continuous_usage or self._params.top_logprobs_count is not None:
            return []
        chunks = [self._chunk(self.text(choice.index, MARK)) for choice in self._generation.choices]
        return [(before, after) for before, _, after in (chunk.partition(one_line(MARK)) for chunk in chunks)]

    def calculator(self, piece: Piece) -> dict[str, Any]:
        before = self._calls[piece.index]
        self._calls[piece.index] += len(piece.delta.tools)
        return calculator(piece.delta.tools, before)

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        if self._params.continuous_usage:
            return b'%b%b],"usage":%b}\n\n' % (self._before, one_line(choice), one_line(self._generation.usage.dump()))
        return b"%b%b%b" % (self._before, one_line(choice), self._after)


def head(prefix: str, kind: str, loaded: Loaded) -> dict[str, Any]:
    """The fields that every answer and every chunk of a stream begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": loaded.entry.id,
        "system_fingerprint": f"fp_{loaded.entry.model.sha256[:12]}",
    }


def calculator(tools: Sequence[ToolCall], before: int = 0) -> dict[str, Any]:
    """The calculator's calls and results. They are not `tool_calls`, because the client has nothing to run or to answer.

    Each entry has an `index`, by which OpenAI's clients join the lists of several chunks; `before` entries came earlier.
    """
    entries = [{"index": before + i, "code": tool.code, "output": tool.output} for i, tool in enumerate(tools)]
    return {"calculator": entries} if entries else {}


async def collected(generation: Generation) -> list[tuple[Delta, str]]:
    """The whole answers with their finish reasons."""
    deltas = [Delta() for _ in generation.choices]
    reasons = ["length" if choice.done else "stop" for choice in generation.choices]  # done before it begins: max_tokens is 0
    async with aclosing(generation.steps()) as steps:
        async for piece in (piece async for pieces in steps for piece in pieces):
            deltas[piece.index] += piece.delta
            reasons[piece.index] = piece.finish_reason or reasons[piece.index]
    return list(zip(deltas, reasons, strict=True))


async def written(answers: Sequence[tuple[Delta, str]], document: Callable[[], dict[str, Any]]) -> Response:
    """The answers as a JSON document. That of 8,000 tokens with 20 log probabilities each takes seconds, so a thread writes it."""

    def write() -> Response:
        return Response(_ENCODER.encode(document()), media_type="application/json")

    scored = sum(len(delta.scored) for delta, _ in answers)
    return await asyncio.to_thread(write) if scored > AT_ONCE else write()


def event(value: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % one_line(value)


def one_line(value: Any) -> bytes:
    """JSON without the characters at which many clients, such as those that use `str.splitlines`, end a line."""
    raw = _ENCODER.encode(value)
    return raw if raw.isascii() else LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", raw.decode()).encode()


async def unless_gone(request: Request, answer: Coroutine[Any, Any, Response]) -> Response:
    """The answer, or an empty response as soon as the client disconnects."""
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return Response(status_code=CLIENT_CLOSED)
    finally:
        for task in (work, gone):
            task.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def disconnected(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
