"""The engine: generates tokens for requests of any length. Every step computes all rows together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from nanochat.distributed import native_dtype
from nanochat.engine.blocks import Blocks
from nanochat.engine.budget import Budget
from nanochat.engine.request import FORCED, SAMPLED, FinishReason, Logprobs, Output, PromptTooLong, Request, Row, Sampling
from nanochat.engine.runner import MAX_DRAWN, Drawn, Runner, affordable, fp8_cache, has_kernels
from nanochat.engine.sampler import logprobs, needs_tokens
from nanochat.engine.scheduler import Scheduler
from nanochat.engine.scoring import prompt_logprobs
from nanochat.engine.threads import threads, threads_for
from nanochat.engine.tool_calls import ToolCalls
from nanochat.grammar import Grammars, Vocabulary
from nanochat.model import GPT

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

GPU_CACHE_SHARE = 0.4  # of the memory that is free when the engine is created, so that a second model fits beside it


@dataclass(frozen=True, slots=True)
class _Flight:
    """Tokens that have been drawn and not been read yet, with the epoch of each row at that time."""

    rows: Sequence[Row]
    epochs: list[int]
    drawn: Drawn


class Engine:
    """Generates text with one model. `add` requests, then call `step` until the engine is no longer `busy`. Not thread-safe.

    Matrices are multiplied in `dtype`; the default is the device's native dtype, as in training. Keys and values are kept in
    `cache_dtype`, by default `dtype`; fp8 holds twice as many positions. `int8` rounds the large matrices to 8 bits, which a row that
    decodes alone reads faster. At most `max_rows` rows run at once. The cache holds
    `cache_tokens` positions, by default `max_rows` full contexts or as many as memory allows (on a GPU `cache_share` of what is free
    now), but at least one context. A step computes about `step_tokens` tokens. `graphs`: run through CUDA graphs on a GPU; each takes
    time to capture, which a few short answers are not worth. With a `share` below 1 cache and steps are that much smaller.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        dtype: torch.dtype | None = None,
        cache_dtype: torch.dtype | None = None,
        int8: bool = False,
        max_rows: int = 128,
        cache_tokens: int | None = None,
        cache_share: float = GPU_CACHE_SHARE,
        step_tokens: int | None = None,
        graphs: bool = True,
        share: float = 1.0,
    ):
        self.tokenizer, self.context = tokenizer, model.config.sequence_len
        device = model.get_device()
        dtype = dtype or native_dtype(device)
        cache_dtype = cache_dtype or dtype
        if cache_dtype.itemsize == 1 and not fp8_cache(model.config, device):
            raise ValueError("an fp8 cache needs an NVIDIA GPU of compute capability 8.9 or newer, and the model's kernels")
        if int8 and not has_kernels(model.config, device):
            raise ValueError("int8 weights need an NVIDIA GPU, and heads whose width is a power of two of at least 16")
        tokens = cache_tokens or min(
            max_rows * self.context, affordable(model.config, cache_dtype, device, cache_share * share)
        )
        budget = Budget.of(model.config, device, step_tokens).shrunk(share)
        self.blocks = Blocks(-(-max(tokens, self.context) // budget.block) + 1, budget.block)
        self.scheduler = Scheduler(self.blocks, budget, max_rows=max_rows)
        self._runner = Runner(model, dtype, self.blocks.count, budget, cache_dtype=cache_dtype, int8=int8, graphs=graphs)
        self._flights: list[_Flight] = []
        self._threads = threads_for(model.config, device)
        self._tools = ToolCalls(tokenizer)
        self._ends = {tokenizer.special("<|assistant_end|>"), tokenizer.bos}
        self.grammars = Grammars(lambda: Vocabulary.of(tokenizer))

    @property
    def model(self) -> GPT:
        """The model whose answers these are: the given one, or a copy in the engine's types."""
        return self._runner.model

    @property
    def busy(self) -> bool:
        return self.scheduler.busy or bool(self._flights)

    def refresh(self) -> None:
        """Call this after the model's weights have changed. Forgets all cached prefixes and copies the new weights."""
        self.blocks.forget_all()
        self._runner.refresh()

    def warm_up(self) -> None:
        """Do in advance what first requests would wait for: on a GPU, compile kernels and capture the graphs of all sizes.

        One answer of each way to draw is generated, because libraries also set themselves up when they are first used.
        """
        with torch.no_grad():
            self._runner.warm_up(self.scheduler.max_rows)
        for how in (Sampling(top_k=50), Sampling(top_p=0.9, min_p=0.1), Sampling(logprobs=1, presence_penalty=0.1)):
            self.add([self.tokenizer.bos], how, max_tokens=2)
        for _ in self.finished():
            pass

    def add(self, prompt: Sequence[int], sampling: Sampling, *, max_tokens: int, n: int = 1, key: str = "") -> Request:
        """Queue a request for `n` answers of at most `max_tokens` tokens each.

        Raises PromptTooLong, GrammarError, and ValueError for an empty prompt or a token outside the vocabulary.
        """
        if not prompt:
            raise ValueError("the prompt is empty; it needs at least <|bos|>")
        if len(prompt) >= self.context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; it must leave room in the model's context of {self.context}"
            )
        vocabulary = self._runner.model.config.vocab_size
        tokens = (*prompt, *sampling.logit_bias)
        # The usual case is checked by loops in C: one in Python took 1.3 ms for 16,384 tokens.
        usual = set(map(type, tokens)) == {int} and min(tokens) >= 0 and max(tokens) < vocabulary
        strange = [token for token in tokens if not isinstance(token, int) or not 0 <= token < vocabulary] if not usual else []
        if strange:
            raise ValueError(f"token {strange[0]!r} is outside the vocabulary of {vocabulary}")
        if n < 1 or max_tokens < 1:
            raise ValueError(f"n and max_tokens must be at least 1, not {n} and {max_tokens}")
        if n > MAX_DRAWN:
            raise ValueError(f"n must be at most {MAX_DRAWN}, not {n}")
        if sampling.logprobs is not None and not 0 <= sampling.logprobs <= vocabulary:
            raise ValueError(f"logprobs must be between 0 and the vocabulary of {vocabulary}, not {sampling.logprobs}")
        request = Request(list(prompt), sampling, min(max_tokens, self.context - len(prompt)), key)
        request.rows = [Row(request, index, list(prompt)) for index in range(n)]
        if sampling.grammar is not None:
            for row in request.rows:
                row.matcher = self.grammars.matcher(sampling.grammar)
        self.scheduler.add(request)
        return request

    def score(self, prompt: Sequence[int], top: int = 0) -> list[Logprobs]:
        """The log probability of each token of the prompt after the first, with those of the `top` most likely tokens."""
        return prompt_logprobs(self._runner.model, prompt, top)

    def cancel(self, request: Request) -> None:
        """End a request now and free its blocks. Has no effect on a finished request."""
        self.scheduler.remove(request)
        for row in request.rows:
            row.finish = row.finish or "cancelled"

    @torch.no_grad()
    def step(self) -> list[Output]:
        """Generate one token for every row that decodes, and read a part of the waiting prompts. Returns the rows' outputs.

        On a GPU these are the outputs of the step before, which the host handles while this step runs. A row that turns out to have
        ended has then been computed once more for nothing.
        """
        with threads(self._threads):
            return self._step()

    def _step(self) -> list[Output]:
        outputs: list[Output] = []
        ahead = self._runner.ahead and not needs_tokens(self.scheduler.running)
        if not ahead:
            outputs += self._land()
        before, self._flights = self._flights, []
        decoding = self.scheduler.decoding()
        if decoding:
            self._launch(decoding, self._runner.decode(decoding))
            self._read(decoding, [1] * len(decoding))
        for rows, new in self._passes(len(decoding)):
            self._runner.read(rows, new)
            self._read(rows, new)
            started, numbers = [], []
            for number, row in enumerate(rows):
                if not row.uncached:
                    joined = [row, *self._fork(row)]
                    started += joined
                    numbers += [number] * len(joined)
            if started:
                self._launch(started, self._runner.draw(numbers, started))
        launched, self._flights = self._flights, before
        outputs += self._land()
        self._flights = launched
        if not ahead or needs_tokens(self.scheduler.running):
            outputs += self._land()
        return outputs

    def _passes(self, decoding: int) -> Iterator[tuple[list[Row], list[int]]]:
        chunks = list(self.scheduler.prefilling(decoding))
        chunks = [(row, new) for row, new in chunks if row in self.scheduler.running]  # a later row may have preempted it
        return self._runner.passes([row for row, _ in chunks], [new for _, new in chunks])

    def finished(self) -> Iterator[Request]:
        """Run until all requests are done. Yields each request as soon as all of its rows have finished."""
        while self.busy:
            ended = {output.row.request: None for output in self.step() if output.finish}
            yield from (request for request in ended if request.finished)

    def generate_batch(
        self,
        prompt: Sequence[int],
        *,
        num_samples: int = 1,
        max_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 42,
        stop: Callable[[], bool] | None = None,
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Generate `num_samples` answers. Returns the tokens and masks of each, without the prompt and the token that ended it.

        The mask is 1 for a sampled token and 0 for a token of the calculator's result. Generation ends early when `stop()`
        returns true. Raises as `add` does, and ValueError for a setting that `Sampling` refuses.
        """
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        request = self.add(prompt, sampling, max_tokens=max_tokens, n=num_samples)
        while not request.finished:
            if stop is not None and stop():
                self.cancel(request)
                break
            self.step()
        return [list(row.made) for row in request.rows], [list(row.masks) for row in request.rows]

    def _launch(self, rows: Sequence[Row], drawn: Drawn) -> None:
        """Note that a token of each row has been drawn."""
        for row in rows:
            row.pending += 1
        self._flights.append(_Flight(rows, [row.epoch for row in rows], drawn))

    def _land(self) -> list[Output]:
        """Read the tokens that have been drawn, and give each row its next token, or end it."""
        flights, self._flights = self._flights, []
        outputs = []
        for flight in flights:
            tokens = flight.drawn.tokens()
            details = logprobs(flight.drawn.logits, flight.rows, tokens)
            for row, epoch, token, detail in zip(flight.rows, flight.epochs, tokens.tolist(), details, strict=True):
                if row.finish is None and row.epoch == epoch:
                    row.pending -= 1
                    outputs.append(self._next(row, token, detail))
                    self._remember(row)
        return outputs

    def _read(self, rows: Sequence[Row], new: Sequence[int]) -> None:
        """Note that the cache holds the next `new` tokens of each row."""
        for row, count in zip(rows, new, strict=True):
            row.cached += count
            self._remember(row)

    def _remember(self, row: Row) -> None:
        """Let later prompts find the row's full blocks. The last token may have been drawn and not be known yet."""
        known = min(row.cached, len(row.tokens))
        if known // self.blocks.size > row.remembered:
            row.remembered = known // self.blocks.size
            self.blocks.remember(row.blocks, row.tokens, known)

    def _fork(self, row: Row) -> list[Row]:
        """Start the other rows of the request, which share the prompt that `row` has read, and return them."""
        others = self.scheduler.forked(row)
        if row.cached % self.blocks.size:
            for other in others:
                self._runner.pool.copy(row.blocks[-1], other.blocks[-1])
        return others

    def _next(self, row: Row, sampled: int, detail: Logprobs | None) -> Output:
        full = len(row.masks) >= row.request.max_tokens
        if row.matcher is not None and row.matcher.failed:
            return self._end(row, "error")
        if not row.forced and sampled in self._ends:
            return self._end(row, "stop")  # even at the limit of tokens, since the answer is complete
        if full:
            return self._end(row, "length")
        mask = FORCED if row.forced else SAMPLED
        token = row.forced.popleft() if row.forced else sampled
        row.tokens.append(token)
        row.masks.append(mask)
        if row.matcher is not None:
            row.matcher.take(token)
        else:
            self._tools.see(row, token)
        return Output(row, token, mask, logprobs=detail if mask == SAMPLED else None)

    def _end(self, row: Row, reason: FinishReason) -> Output:
        row.finish = reason
        self.scheduler.end(row)
        return Output(row, finish=reason)
