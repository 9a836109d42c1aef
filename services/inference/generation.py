"""One chat request: admission, text from the engine's tokens, token counts, metrics, cancellation."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from nanochat.engine.request import Sampling
from services.inference.engine_thread import EngineThread
from services.inference.engines.request import EngineRequest, Order, QueueFull, RowOutput
from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.registry import Loaded
from services.inference.schemas import ChatRequest, TurnError, conversation
from services.inference.text import AnswerText, Delta

FinishReason = Literal["stop", "length"]
RETRY_AFTER_S = 2


@dataclass(slots=True)
class Piece:
    """A part of choice `index`: new text and tool calls. The last piece of a choice has its finish reason."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None


@dataclass(slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int = 0

    def dump(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens, "total_tokens": total}


@dataclass(slots=True)
class Choice:
    """One of the n answers of a request."""

    index: int
    text: AnswerText
    done: bool = False

    def push(self, output: RowOutput) -> Piece:
        """Add what a step of the engine made of this answer."""
        if output.token is None:
            return self.finish("length" if output.finish == "length" else "stop")
        delta = self.text.push(output.token)
        return self.finish("stop", delta) if self.text.finished else Piece(self.index, delta)

    def finish(self, reason: FinishReason, delta: Delta | None = None) -> Piece:
        delta, rest, self.done = delta or Delta(), self.text.flush(), True
        return Piece(self.index, Delta(delta.text + rest.text, delta.tools + rest.tools), reason)


@dataclass(slots=True)
class Generation:
    """An admitted request. Iterate `pieces` to the end, or close it; both release the engine's memory."""

    loaded: Loaded
    request: EngineRequest
    choices: list[Choice]
    usage: Usage
    metrics: Metrics
    _last_token_at: float = field(default=0.0, init=False)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """The text, while it is generated. Ends when every choice has finished. Raises ApiError if the engine fails."""
        try:
            async with aclosing(self.request.outputs()) as steps:
                async for outputs in steps:
                    self._count(outputs)
                    for output in outputs:
                        choice = self.choices[output.index]
                        if not choice.done:
                            yield self._counted(choice.push(output))
                    if all(choice.done for choice in self.choices):
                        break
            self._observe_end()
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.cancelled.labels(self.loaded.entry.id).inc()
            raise
        except Exception as err:
            raise ApiError(
                500, "The model failed while it answered. The server's log has the reason.", code="engine_error"
            ) from err
        finally:
            self.request.cancel()

    def _counted(self, piece: Piece) -> Piece:
        if piece.finish_reason:
            self.metrics.success.labels(self.loaded.entry.id, piece.finish_reason).inc()
        return piece

    def _count(self, outputs: Sequence[RowOutput]) -> None:
        made = sum(1 for output in outputs if output.token is not None and not self.choices[output.index].done)
        name, now = self.loaded.entry.id, time.monotonic()
        if not self._last_token_at:
            self.metrics.ttft.labels(name).observe(now - self.request.submitted_at)
        else:
            self.metrics.itl.labels(name).observe(now - self._last_token_at)
        self._last_token_at = now
        self.usage.completion_tokens += made
        self.metrics.generation_tokens.labels(name).inc(made)

    def _observe_end(self) -> None:
        self.metrics.e2e.labels(self.loaded.entry.id).observe(time.monotonic() - self.request.submitted_at)


async def admit(request: ChatRequest, loaded: Loaded, engines: EngineThread, metrics: Metrics) -> Generation:
    """Render, check and queue a request. Raises ApiError: 400 for wrong turns or length, 429 if too many requests wait."""
    try:
        messages = conversation(request.messages)
    except TurnError as err:
        raise ApiError(400, f"{err.param}: {err}.", param=err.param, code="invalid_value") from err
    tokenizer, n = loaded.tokenizer, request.n or 1
    prompt = await asyncio.to_thread(tokenizer.render_for_completion, messages)
    room = loaded.context - len(prompt)
    if room < 1:
        raise ApiError(
            400,
            f"The model's context is {loaded.context} tokens and the messages take {len(prompt)}, so there is no room for an"
            " answer. Shorten the messages or leave out the oldest turns.",
            param="messages",
            code="context_length_exceeded",
        )
    sampling = Sampling(
        temperature=1.0 if request.temperature is None else request.temperature,
        top_k=request.top_k or 0,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=request.seed if request.seed is not None else secrets.randbits(31),
    )
    try:
        queued = engines.submit(Order(loaded.entry.id, prompt, sampling, min(request.limit or room, room), n))
    except QueueFull as err:
        metrics.rejections.labels("queue_full").inc()
        raise ApiError(
            429,
            "Too many requests are waiting. Try again in a few seconds.",
            code="rate_limit_exceeded",
            retry_after_s=RETRY_AFTER_S,
        ) from err
    metrics.prompt_tokens.labels(loaded.entry.id).inc(len(prompt))
    choices = [Choice(i, AnswerText(tokenizer, request.stops)) for i in range(n)]
    return Generation(loaded, queued, choices, Usage(len(prompt)), metrics)
