"""Run the model for the engine: rows of any lengths use one pool of KV blocks, and each gets the logits of its next token."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from nanochat.config.shape import GPTConfig
from nanochat.engine.budget import Budget
from nanochat.engine.cache import Pool, PoolView, on_device
from nanochat.engine.dense import Dense, DenseView
from nanochat.engine.request import Row
from nanochat.engine.sampler import fits_graph, sample
from nanochat.model import GPT
from nanochat.model.loss import softcap

if TYPE_CHECKING:
    from nanochat.engine.graphs import Graphs

CPU_CACHE_BYTES = 1 << 30
MAX_DRAWN = 4096  # rows whose tokens are drawn in one pass on a GPU
MAX_READ = 128  # rows whose prompts are read in one pass on a GPU


def has_kernels(config: GPTConfig, device: torch.device) -> bool:
    """Whether the model runs through the kernels of `engine.fused`, which the 8-bit switches need."""
    if device.type != "cuda":
        return False
    from nanochat.engine.fused import supports  # without a GPU there may be no Triton

    return supports(config, device)


def fp8_cache(config: GPTConfig, device: torch.device) -> bool:
    """Whether keys and values can be kept in fp8: by the GPU's own conversions, in the model's kernels."""
    return has_kernels(config, device) and torch.cuda.get_device_capability(device) >= (8, 9)


def affordable(config: GPTConfig, dtype: torch.dtype, device: torch.device, share: float) -> int:
    """The number of positions that fit into the memory which a cache may use: on a GPU, `share` of what is free now."""
    budget = share * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_CACHE_BYTES
    return int(budget // (2 * config.n_layer * config.n_kv_head * config.head_dim * dtype.itemsize))


class Held(Protocol):
    """A row whose first `cached` tokens are in the pool, in `blocks`, which have room for all of its tokens."""

    tokens: list[int]
    cached: int
    blocks: list[int]


class Drawn:
    """The next tokens of some rows. On a GPU, their copy to the host has begun."""

    def __init__(self, logits: Tensor, tokens: Tensor):
        self.logits = logits
        self._tokens, self._copied = tokens, None
        if tokens.is_cuda:
            self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
            self._tokens.copy_(tokens, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    def tokens(self) -> Tensor:
        """The tokens (B,) int64 on the CPU. Waits until they are there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._tokens


class Runner:
    """A model with matrices in `dtype`, and the KV pool.

    If the given model's matrices have another dtype, as in training, they are copied once instead of being cast in every pass.
    `refresh` copies them again after they have changed. A pass over prompts has at most `budget.idle` tokens. `int8` is described in
    `Fused`; it rounds a copy. A row has at most `context` tokens, by default those of the model's context.
    """

    def __init__(
        self,
        model: GPT,
        dtype: torch.dtype,
        blocks: int,
        budget: Budget,
        *,
        cache_dtype: torch.dtype,
        int8: bool = False,
        graphs: bool = True,
        context: int | None = None,
    ):
        self.source, self.device = model, model.get_device()
        as_it_is = is_narrow(model, dtype) and not int8
        self.model = model if as_it_is else narrow(GPT(model.config).to(self.device), dtype)
        self._dense: Dense | None = None
        self._graphs: Graphs | None = None
        self.refresh()
        self.pool = Pool(model.config, blocks, budget.block, cache_dtype, self.device)
        if has_kernels(model.config, self.device):
            from nanochat.engine.graphs import Graphs  # without a GPU there may be no Triton

            self._graphs = Graphs(self.model, self.pool, budget.idle, context, capture=graphs, int8=int8)
        elif self.device.type == "cpu":
            self._dense = Dense(self.pool)
        self._hidden = torch.empty(0, device=self.device)
        self._last: list[int] = []  # number of the last new token of each row of the latest `read`

    @property
    def ahead(self) -> bool:
        """Whether a step can begin before the tokens of the step before have been read."""
        return self._graphs is not None

    @torch.no_grad()
    def refresh(self) -> None:
        if self.model is not self.source:
            for ours, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
                ours.copy_(theirs)
        if self._graphs:
            self._graphs.fused.refresh()
        if self._dense:
            self._dense.forget()

    def warm_up(self, rows: int) -> None:
        """Prepare what passes with up to `rows` rows need."""
        if self._graphs is not None:
            self._graphs.warm_up(rows)

    def decode(self, rows: Sequence[Row]) -> Drawn:
        """Run the model on the next token of each row, and draw the token after it."""
        if self._graphs is not None:
            return self._drawn(self._graphs.decode(rows), rows)
        self._last = list(range(len(rows)))
        if not self._decode_dense(rows):
            self._forward(rows, [1] * len(rows))
        return self.draw(self._last, rows)

    def passes(self, rows: Sequence[Row], new: Sequence[int]) -> Iterator[tuple[list[Row], list[int]]]:
        """Divide rows with `new` tokens each into passes of `read`. On a CPU the rows of a pass have equally many new tokens,
        because padding costs time."""
        if self._graphs is not None:
            for first in range(0, len(rows), MAX_READ):
                yield list(rows[first : first + MAX_READ]), list(new[first : first + MAX_READ])
            return
        alike: dict[int, list[Row]] = {}
        for row, count in zip(rows, new, strict=True):
            alike.setdefault(count, []).append(row)
        for count, several in alike.items():
            yield several, [count] * len(several)

    def read(self, rows: Sequence[Held], new: Sequence[int]) -> None:
        """Run the model on the next `new` tokens of each row."""
        self._last = [end - 1 for end in accumulate(new)]
        if self._graphs is not None:
            self._graphs.read(rows, new)
        else:
            self._forward(rows, new)

    def states(self, numbers: Sequence[int]) -> Tensor:
        """The final normed states (N, C) of some tokens of the latest `read`, whose rows' new tokens are numbered one after another."""
        if self._graphs is not None:
            return self._graphs.states(on_device(numbers, self.device))
        return self._hidden.flatten(0, 1)[self._places(numbers)]

    def draw(self, numbers: Sequence[int], rows: Sequence[Row]) -> Drawn:
        """Draw a token for each row, after the row with that number in the latest `read`. A number may occur more than once."""
        if self._graphs is not None:
            return self._drawn(self._graphs.draw([self._last[number] for number in numbers], rows), rows)
        logits = softcap(self.model.lm_head(self.states([self._last[number] for number in numbers])))
        return Drawn(logits, sample(logits, rows))

    def _drawn(self, logits: Tensor, rows: Sequence[Row]) -> Drawn:
        assert self._graphs is not None
        slots = self._graphs.drawn[rows[0].slot : rows[0].slot + len(rows)]
        if not fits_graph(rows):
            slots.copy_(sample(logits, rows))
        return Drawn(logits, slots)

    @torch.no_grad()
    def _forward(self, rows: Sequence[Held], new: Sequence[int]) -> None:
        """Keep the states (B, T, C) of the `new` tokens of each row. Rows with fewer new tokens are padded to T.

        The rows' blocks must have room for the new tokens.
        """
        longest = max(new)
        fed = [row.tokens[row.cached : row.cached + n] + [0] * (longest - n) for row, n in zip(rows, new, strict=True)]
        ids = torch.tensor(fed, device=self.device)
        cached = [row.cached for row in rows]
        view = PoolView(self.pool, [row.blocks for row in rows], cached, longest, self._previous(rows))
        self._hidden = self.model.hidden(ids, view)

    @torch.no_grad()
    def _decode_dense(self, rows: Sequence[Row]) -> bool:
        """`_forward` with one new token per row, on a CPU. Returns False when the rows do not fit."""
        order = self._dense.arrange(rows) if self._dense else None
        if self._dense is None or order is None:
            return False
        placed = [rows[index] for index in order]
        ids = torch.tensor([[row.tokens[row.cached]] for row in placed])
        view = DenseView(self._dense, self.pool, placed, self._previous(placed))
        hidden = self.model.hidden(ids, view)
        view.finish()
        self._hidden = hidden if order == sorted(order) else hidden[torch.tensor(order).argsort()]
        return True

    def _places(self, numbers: Sequence[int]) -> Tensor:
        """Where tokens that are numbered row after row lie in the padded pass."""
        longest = self._hidden.size(1)
        rows = [bisect.bisect_left(self._last, number) for number in numbers]
        starts = [0, *[last + 1 for last in self._last]]
        places = [row * longest + number - starts[row] for row, number in zip(rows, numbers, strict=True)]
        return torch.tensor(places, device=self.device)

    def _previous(self, rows: Sequence[Held]) -> Tensor | None:
        if not self.model.config.smear:
            return None
        ids = torch.tensor([[row.tokens[row.cached - 1] if row.cached else 0] for row in rows], device=self.device)
        begun = torch.tensor([[[row.cached > 0]] for row in rows], device=self.device)
        return self.model.embedded(ids) * begun


def narrow(model: GPT, dtype: torch.dtype) -> GPT:
    """Cast the model's matrices in place. Scalars stay in fp32: they are few, and rounding one would rescale a whole layer."""
    for parameter in _matrices(model):
        parameter.data = parameter.data.to(dtype)
    return model


def is_narrow(model: GPT, dtype: torch.dtype) -> bool:
    return all(parameter.dtype == dtype for parameter in _matrices(model))


def _matrices(model: GPT) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.dim() >= 2]
