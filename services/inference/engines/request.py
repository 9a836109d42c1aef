"""A request to an engine as the REST API sees it: an order goes in, the outputs of each step come out. Imports no torch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

import msgspec

from nanochat.engine.request import FORCED, FinishReason, Logprobs, Sampling

PROMPT = -1  # index of outputs that are the tokens of the prompt, from its second on, with their log probabilities
AT_ONCE = 64  # outputs: with 20 log probabilities each, writing them takes 3 ms, and nothing else runs meanwhile
LOST = "engine_lost"  # code of a ModelNotLoaded: the process died while it loaded the model


class QueueFull(Exception):
    """The queue is full; the request was not accepted."""


class EngineError(Exception):
    """The engine failed, or it refused the request. The message is for the caller."""


class EngineLost(EngineError):
    """The engine process died, or no process has the model at the moment. The same request may succeed a little later."""


class ModelNotLoaded(Exception):
    """A model cannot be loaded. `code` and `hint` are those of a StageError."""

    def __init__(self, message: str, code: str, hint: str):
        super().__init__(message)
        self.code, self.hint = code, hint


@dataclass(frozen=True, slots=True)
class Order:
    """What to generate, and with which model."""

    model: str  # id of a loaded model
    prompt: Sequence[int]
    sampling: Sampling
    max_tokens: int
    n: int = 1
    key: str = ""  # orders of one key share one turn in the engine's queue
    scores_prompt: bool = False  # report the log probabilities of the prompt's tokens first


class RowOutput(msgspec.Struct, frozen=True):
    """The result of one step for answer `index` (or PROMPT): a token with its mask, or, as its last output, the reason why it finished.

    One is made for each token; making a frozen dataclass takes ten times as long.
    """

    index: int
    token: int | None = None
    mask: int = FORCED
    finish: FinishReason | None = None
    logprobs: Logprobs | None = None


class EngineRequest:
    """One request in an engine. Use it on the event loop only."""

    def __init__(self, order: Order):
        self.order = order
        self.on_cancel: Callable[[], None] | None = None  # tells the engine
        self.submitted_at = time.monotonic()
        self.attempts = 0  # engine processes that had it
        self.replica = 0  # number of the one that has it
        self._outputs: list[RowOutput] = []
        self._error: Exception | None = None
        self._ended = False
        self._reader: asyncio.Future[None] | None = None  # while it waits

    @property
    def ended(self) -> bool:
        return self._ended

    def cancel(self) -> None:
        """Stop the work and free the engine's memory. Has no effect on a request that has ended."""
        if not self._ended:
            self.end()
            if self.on_cancel:
                self.on_cancel()

    async def outputs(self) -> AsyncGenerator[list[RowOutput]]:
        """The outputs since the last read, in order: those of one step, or up to AT_ONCE while the reader is behind.

        Raises EngineError if the engine failed.
        """
        while True:
            if not (self._outputs or self._ended):
                self._reader = asyncio.get_running_loop().create_future()
                await self._reader
            if outputs := self._outputs[:AT_ONCE]:
                del self._outputs[:AT_ONCE]
                yield outputs
                if self._outputs:
                    await asyncio.sleep(0)  # the other requests' turn; a reader whose client is gone ends here
                continue
            if self._ended:
                if self._error is not None:
                    raise self._error
                return

    def put(self, outputs: Sequence[RowOutput]) -> None:
        self._outputs += outputs
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """End the iteration of `outputs`, with an error if there is one."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
