"""Generate many samples from one prompt, and answer the calculator calls in them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nanochat.distributed import native_dtype
from nanochat.engine.cache import KVCache
from nanochat.engine.sampler import Sampling, sample, uniforms
from nanochat.engine.tools import calculate
from nanochat.model import GPT
from nanochat.model.loss import softcap

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

ENDED = -1  # stands for the token of a row that has finished
SAMPLED, FORCED = 1, 0  # mask: the model sampled the token, or the calculator's answer forced it
Column = tuple[list[int], list[int]]  # (tokens, masks) of one step, one entry per row


class PromptTooLong(ValueError):
    """The prompt leaves no room for a single token in the model's context."""


class Engine:
    """Generates text with a model. Keeps no state between calls, so calls may be interleaved on one thread.

    Matrices are multiplied in `dtype`. By default this is the device's native dtype, as in training.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, *, dtype: torch.dtype | None = None):
        self.model, self.tokenizer = model, tokenizer
        self.context: int = model.config.sequence_len
        self.dtype = dtype or native_dtype(model.get_device())
        self._tool = Tool(tokenizer)
        self._ends = {tokenizer.special("<|assistant_end|>"), tokenizer.bos}

    @torch.no_grad()
    def generate(
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
    ) -> Iterator[Column]:
        """Yield one column per step: a token and a mask for each of `num_samples` rows.

        The mask is 1 for a sampled token and 0 for a token of the calculator's answer. A row that samples `<|assistant_end|>`
        or `<|bos|>` is finished: that token is not yielded, and the row's tokens are -1 from then on.

        Generation ends when all rows have finished (then the last column is all -1), after `max_tokens`, at the end of the
        model's context, or when `stop()` returns true. A row without any -1 was cut off by length or by `stop`.
        Raises PromptTooLong, and ValueError for an empty prompt or a setting that `Sampling` refuses.
        """
        if not prompt:
            raise ValueError("the prompt is empty; it needs at least <|bos|>")
        if len(prompt) >= self.context:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens; it must leave room in the model's context of {self.context}"
            )
        steps = min(max_tokens, self.context - len(prompt))
        device = self.model.get_device()
        how = Sampling(temperature, top_k, top_p, seed)
        draws = torch.from_numpy(uniforms(seed, num_samples, steps)).to(device)  # (N, steps)
        rows = [SampleState() for _ in range(num_samples)]
        batch = DecodeBatch(self.model, self.dtype, prompt, num_samples, len(prompt) + steps)
        for step in range(steps):
            if stop is not None and stop():
                return
            sampled = sample(batch.logits, draws[batch.rows, step], how).tolist()
            column: Column = ([ENDED] * num_samples, [FORCED] * num_samples)
            for index, token in zip(batch.rows, sampled, strict=True):
                if rows[index].ended:
                    continue
                column[0][index], column[1][index] = self._advance(rows[index], token)
            yield column
            alive = [i for i in batch.rows if not rows[i].ended]
            if not alive:
                return
            if step + 1 < steps:
                batch.feed(column[0], alive)

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
        """Return the tokens and masks of each row, without the prompt and the token that ended the row.

        Arguments and errors are those of `generate`.
        """
        tokens: list[list[int]] = [[] for _ in range(num_samples)]
        masks: list[list[int]] = [[] for _ in range(num_samples)]
        with autocast(self.model.get_device(), self.dtype):  # one context for all steps casts the weights only once
            for column in self.generate(
                prompt,
                num_samples=num_samples,
                max_tokens=max_tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed,
                stop=stop,
            ):
                for row, (token, mask) in enumerate(zip(*column, strict=True)):
                    if token != ENDED:
                        tokens[row].append(token)
                        masks[row].append(mask)
        return tokens, masks

    def _advance(self, row: SampleState, sampled: int) -> tuple[int, int]:
        """Return the row's next token and mask. Tokens that the tool has queued replace the sampled one."""
        if row.forced:
            token = row.forced.popleft()
            self._tool.see(row, token)
            return token, FORCED
        if sampled in self._ends:
            row.ended = True
            return ENDED, FORCED
        self._tool.see(row, sampled)
        return sampled, SAMPLED


@dataclass(slots=True)
class SampleState:
    """The state of one sample: its open tool call, the tokens that are forced to come next, and whether it has finished."""

    call: list[int] | None = None  # tokens of the expression so far
    forced: deque[int] = field(default_factory=deque)
    ended: bool = False


class Tool:
    """Answers `<|python_start|>` expression `<|python_end|>` with `<|output_start|>` result `<|output_end|>`.

    An expression that the calculator does not understand gets no answer; the model then continues on its own.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end, self.output_start, self.output_end = (
            tokenizer.special(f"<|{name}|>") for name in ("python_start", "python_end", "output_start", "output_end")
        )

    def see(self, row: SampleState, token: int) -> None:
        """Note the row's next token. At the end of a call, queue the answer."""
        if token == self.start:
            row.call = []
        elif token == self.end and row.call is not None:
            result = calculate(self.tokenizer.decode(row.call))
            if result is not None:
                row.forced.extend([self.output_start, *self.tokenizer.encode(result), self.output_end])
            row.call = None
        elif row.call is not None:
            row.call.append(token)


class DecodeBatch:
    """The rows that are still being generated: their numbers, their KV cache, and `logits` (rows, V) of their next tokens."""

    def __init__(self, model: GPT, dtype: torch.dtype, prompt: Sequence[int], num_samples: int, capacity: int):
        self.model, self.dtype, self.device = model, dtype, model.get_device()
        self.rows = list(range(num_samples))
        # All rows have the same prompt, so it is computed once and copied.
        self.cache = KVCache(model.config.n_layer, capacity if num_samples == 1 else len(prompt))
        logits = self._forward(torch.tensor([list(prompt)], device=self.device))
        self.logits = logits.expand(num_samples, -1)
        if num_samples > 1:
            self.cache = self.cache.select(torch.zeros(num_samples, dtype=torch.int64, device=self.device), capacity)

    def feed(self, tokens: Sequence[int], alive: Sequence[int]) -> None:
        """Compute the next logits. `tokens` is the last column, by row number; rows that are not `alive` may be dropped.

        They are dropped only once half of the rows have finished, because dropping rows copies the whole cache.
        """
        if 2 * len(alive) <= len(self.rows):
            kept = torch.tensor([self.rows.index(row) for row in alive], device=self.device)
            self.cache, self.rows = self.cache.select(kept), list(alive)
        fed = [[max(tokens[row], 0)] for row in self.rows]
        self.logits = self._forward(torch.tensor(fed, device=self.device))

    def _forward(self, ids: Tensor) -> Tensor:
        """Return the logits (B, V), in fp32, of the token that follows ids (B, T)."""
        with autocast(self.device, self.dtype):
            return softcap(self.model.lm_head(self.model.hidden(ids, self.cache)[:, -1]))


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
