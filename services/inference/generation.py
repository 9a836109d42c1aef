"""The answers to one API request: admission, text from the engine's tokens, token counts, metrics, cancellation."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, Protocol

from nanochat.engine.request import Logprobs, Sampling
from services.inference.engines.request import PROMPT, EngineLost, EngineRequest, Order, QueueFull, RowOutput
from services.inference.errors import ApiError
from services.inference.merge import merged
from services.inference.metrics import AnswerMetrics, Metrics
from services.inference.prompts import check_room, check_token_ids
from services.inference.registry import Loaded
from services.inference.schemas.sampling import SamplingParams
from services.inference.state import State
from services.inference.text import AnswerText, Delta, ScoredToken

log = logging.getLogger(__name__)

FinishReason = Literal["stop", "length"]
RETRY_AFTER_S = 2


class Text(Protocol):
    """Turns the tokens of an answer into text: AnswerText or MarkedText."""

    finished: bool

    def push(self, token: int, mask: int, logprobs: Logprobs | None) -> Delta: ...
    def flush(self) -> Delta: ...


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
    """One answer to one prompt."""

    index: int
    text: Text
    done: bool = False

    def push(self, output: RowOutput) -> Piece:
        """Add what a step of the engine made of this answer."""
        if output.finish == "error":
            raise ApiError(
                400,
                "The answer cannot be kept to its grammar: the next token would take too much work to find. Make the grammar"
                " simpler.",
                code="grammar_too_complex",
            )
        if output.token is None:
            return self.finish("length" if output.finish == "length" else "stop")
        delta = self.text.push(output.token, output.mask, output.logprobs)
        return self.finish("stop", delta) if self.text.finished else Piece(self.index, delta)

    def finish(self, reason: FinishReason, delta: Delta | None = None) -> Piece:
        self.done = True
        return Piece(self.index, (delta or Delta()) + self.text.flush(), reason)


@dataclass(slots=True)
class Answers:
    """The answers to one prompt, and its request in the engine."""

    request: EngineRequest
    choices: list[Choice]
    prompt: list[ScoredToken]  # with the log probabilities of the prompt if the request asks for them
    last_token_at: float = field(default=0.0, init=False)


@dataclass(slots=True)
class Generation:
    """An admitted request. Iterate `steps` to the end, or close it; both release the engine's memory."""

    loaded: Loaded
    answers: list[Answers]
    usage: Usage
    metrics: Metrics
    _measured: AnswerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self._measured = self.metrics.of(self.loaded.entry.id)

    @property
    def choices(self) -> list[Choice]:
        return [choice for answers in self.answers for choice in answers.choices]

    def cancel(self) -> None:
        for answers in self.answers:
            answers.request.cancel()

    async def steps(self) -> AsyncGenerator[Collection[Piece]]:
        """The text, while it is generated: the pieces that came together. Ends when every choice has finished. Raises ApiError if the engine fails."""
        try:
            async with aclosing(merged([answers.request.outputs() for answers in self.answers])) as steps:
                async for i, outputs in steps:
                    answers = self.answers[i]
                    if pieces := self._read(answers, outputs):
                        yield pieces
                    if pieces and not any(piece.finish_reason for piece in pieces):
                        continue
                    if all(choice.done for choice in answers.choices):
                        answers.request.cancel()  # a stop text ends an answer that the engine would continue
                        self._observe_end(answers)
                    if all(choice.done for choice in self.choices):
                        break
        except (asyncio.CancelledError, GeneratorExit):
            self.metrics.cancelled.labels(self.loaded.entry.id).inc()
            raise
        except EngineLost as err:
            raise _lost(err) from err
        except ApiError:
            raise
        except Exception as err:
            log.exception("an answer of model %s failed", self.loaded.entry.id)
            raise ApiError(
                500, "The model failed while it answered. The server's log has the reason.", code="engine_error"
            ) from err
        finally:
            self.cancel()

    def _read(self, answers: Answers, outputs: Sequence[RowOutput]) -> Collection[Piece]:
        """One piece for each choice, however many of its tokens have come: a server that is behind sends fewer, longer chunks."""
        pieces: dict[int, Piece] = {}
        made = 0
        for output in outputs:
            if output.index == PROMPT:
                answers.prompt.append(ScoredToken(output.token or 0, output.logprobs))
                continue
            choice = answers.choices[output.index]
            if choice.done:
                continue
            made += output.token is not None
            piece = choice.push(output)
            if (before := pieces.get(output.index)) is not None:
                piece.delta = before.delta + piece.delta
            pieces[output.index] = piece
        if pieces:
            self._count(answers, made)
        for piece in pieces.values():
            if piece.finish_reason:
                self.metrics.success.labels(self.loaded.entry.id, piece.finish_reason).inc()
        return pieces.values()

    def _count(self, answers: Answers, made: int) -> None:
        measured, now = self._measured, time.monotonic()
        if not answers.last_token_at:
            measured.ttft.observe(now - answers.request.submitted_at)
        else:
            measured.itl.observe(now - answers.last_token_at)
        answers.last_token_at = now
        self.usage.completion_tokens += made
        measured.generation_tokens.inc(made)

    def _observe_end(self, answers: Answers) -> None:
        self._measured.e2e.observe(time.monotonic() - answers.request.submitted_at)


def sampling(params: SamplingParams, loaded: Loaded) -> Sampling:
    """The engine's settings for a request. Raises ApiError 400 for a token outside the vocabulary."""
    bias = {int(token): value for token, value in (params.logit_bias or {}).items()}
    check_token_ids(list(bias), loaded.tokenizer.vocab_size, "logit_bias")
    check_token_ids(params.stop_token_ids or (), loaded.tokenizer.vocab_size, "stop_token_ids")
    return Sampling(
        temperature=1.0 if params.temperature is None else params.temperature,
        top_k=max(params.top_k or 0, 0),
        top_p=1.0 if params.top_p is None else params.top_p,
        min_p=params.min_p or 0.0,
        presence_penalty=params.presence_penalty or 0.0,
        frequency_penalty=params.frequency_penalty or 0.0,
        repetition_penalty=1.0 if params.repetition_penalty is None else params.repetition_penalty,
        logit_bias=bias,
        logprobs=params.top_logprobs_count,
        grammar=params.constraint[1] if params.constraint else None,
        seed=params.seed if params.seed is not None else secrets.randbits(31),
    )


def admit(
    params: SamplingParams,
    prompts: Sequence[Sequence[int]],
    loaded: Loaded,
    state: State,
    *,
    param: str = "messages",
    text: Callable[[], Text] | None = None,
) -> Generation:
    """Check and queue a request. `param` is the field that holds the prompts; `text` replaces AnswerText.

    Raises ApiError: 400 for a prompt without room for an answer, 429 if too many requests wait.
    """
    how, n = sampling(params, loaded), params.n or 1
    rooms = [check_room(prompt, loaded.context, param) for prompt in prompts]
    text = text or (lambda: AnswerText(loaded.tokenizer, params.stops, params.stop_token_ids or ()))
    answers: list[Answers] = []
    try:
        for i, (prompt, room) in enumerate(zip(prompts, rooms, strict=True)):
            wanted = room if params.answer_tokens is None else params.answer_tokens
            length = min(wanted, room, state.limits.max_tokens)
            order = Order(loaded.entry.id, prompt, how, max(length, 1), n, state.caller, params.scores_prompt)
            choices = [Choice(i * n + j, text(), done=length == 0) for j in range(n)]
            answers.append(Answers(state.engines.submit(order), choices, [ScoredToken(prompt[0], None)]))
    except (QueueFull, EngineLost) as err:
        for admitted in answers:
            admitted.request.cancel()
        if isinstance(err, EngineLost):
            raise _lost(err) from err
        state.metrics.rejections.labels("queue_full").inc()
        raise ApiError(
            429,
            "Too many requests or too long prompts are waiting. Try again in a few seconds.",
            code="rate_limit_exceeded",
            retry_after_s=RETRY_AFTER_S,
        ) from err
    total = sum(map(len, prompts))
    state.metrics.prompt_tokens.labels(loaded.entry.id).inc(total)
    return Generation(loaded, answers, Usage(total), state.metrics)


def _lost(err: EngineLost) -> ApiError:
    return ApiError(503, str(err), code="engine_restarting", retry_after_s=RETRY_AFTER_S)
