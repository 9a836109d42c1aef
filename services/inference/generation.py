"""One chat request from messages to text: admission, the engine's columns as text deltas, usage, metrics, cancellation."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal

from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.registry import Loaded
from services.inference.scheduler import Column, Job, QueueFull, Scheduler
from services.inference.schemas import ChatRequest, TurnError, conversation
from services.inference.text import Delta, RowText

FinishReason = Literal["stop", "length"]
RETRY_AFTER_S = 2


@dataclass(slots=True)
class Piece:
    """News about choice `index`: text and tool calls to add, or (once, last) why it finished."""

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
class Row:
    """One of the n answers."""

    index: int
    text: RowText
    done: bool = False

    def push(self, token: int) -> Piece:
        """Take a token; -1 means that the engine has ended this row."""
        delta = self.text.push(token) if token >= 0 else Delta()
        if token >= 0 and not self.text.finished:
            return Piece(self.index, delta)
        return self.finish("stop", delta)

    def finish(self, reason: FinishReason, delta: Delta | None = None) -> Piece:
        delta, rest, self.done = delta or Delta(), self.text.flush(), True
        return Piece(self.index, Delta(delta.text + rest.text, delta.tools + rest.tools), reason)


@dataclass(slots=True)
class Generation:
    """An admitted request. Iterate `pieces` to the end or close it: either way the engine is let go."""

    loaded: Loaded
    job: Job
    rows: list[Row]
    usage: Usage
    metrics: Metrics
    _last_token_at: float = field(default=0.0, init=False)

    async def pieces(self) -> AsyncGenerator[Piece]:
        """Text as it is made. Ends when every row has finished; raises ApiError when the engine fails."""
        try:
            async with aclosing(self.job.columns()) as columns:
                async for tokens, _ in columns:
                    self._count(tokens)
                    for row, token in zip(self.rows, tokens, strict=True):
                        if not row.done:
                            yield self._noted(row.push(token))
                    if all(row.done for row in self.rows):
                        break
            for row in self.rows:
                if not row.done:
                    yield self._noted(row.finish("length"))
            self._observe_end()
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.cancelled.labels(self.loaded.entry.id).inc()
            raise
        except Exception as err:
            raise ApiError(500, "The model failed while it answered; the server's log says why.", code="engine_error") from err
        finally:
            self.job.cancel()

    def _noted(self, piece: Piece) -> Piece:
        if piece.finish_reason:
            self.metrics.success.labels(self.loaded.entry.id, piece.finish_reason).inc()
        return piece

    def _count(self, tokens: list[int]) -> None:
        made = sum(1 for row, token in zip(self.rows, tokens, strict=True) if token >= 0 and not row.done)
        name, now = self.loaded.entry.id, time.monotonic()
        if self.usage.completion_tokens == 0:
            self.metrics.ttft.labels(name).observe(now - self.job.submitted_at)
        else:
            self.metrics.itl.labels(name).observe(now - self._last_token_at)
        self._last_token_at = now
        self.usage.completion_tokens += made
        self.metrics.generation_tokens.labels(name).inc(made)

    def _observe_end(self) -> None:
        self.metrics.e2e.labels(self.loaded.entry.id).observe(time.monotonic() - self.job.submitted_at)


async def admit(request: ChatRequest, loaded: Loaded, scheduler: Scheduler, metrics: Metrics) -> Generation:
    """Render, check and queue a request. Raises ApiError: 400 for turns or length, 429 when too many wait."""
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
            f"This model's context is {loaded.context} tokens, but the messages take {len(prompt)}, which leaves no room for an"
            " answer. Shorten them or leave out the oldest turns.",
            param="messages",
            code="context_length_exceeded",
        )
    limit = min(request.limit or room, room)
    seed = request.seed if request.seed is not None else secrets.randbits(31)

    def start() -> Iterator[Column]:
        return loaded.engine.generate(
            prompt,
            num_samples=n,
            max_tokens=limit,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_k=request.top_k or 0,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=seed,
        )

    try:
        job = scheduler.submit(start)
    except QueueFull as err:
        metrics.rejections.labels("queue_full").inc()
        raise ApiError(
            429, "Too many requests are waiting; try again shortly.", code="rate_limit_exceeded", retry_after_s=RETRY_AFTER_S
        ) from err
    metrics.prompt_tokens.labels(loaded.entry.id).inc(len(prompt))
    rows = [Row(i, RowText(tokenizer, request.stops)) for i in range(n)]
    return Generation(loaded, job, rows, Usage(len(prompt)), metrics)
