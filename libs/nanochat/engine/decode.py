"""Decoding on a GPU: one CUDA graph per number of rows, so that a step costs no launches from Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.engine.cache import Pool
from nanochat.engine.request import Row
from nanochat.engine.sampler import inverse_temperatures, sample_top_k
from nanochat.model import GPT
from nanochat.model.loss import softcap

BLOCKS_AT = 4  # columns of a graph's integers before the blocks
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # rows of a graph; fewer rows are padded


class DecodeView:
    """What the model sees of the pool when each of B rows has one new token. `table` (B, W) int32, `pos` (B,) int64."""

    def __init__(self, pool: Pool, table: Tensor, pos: Tensor, previous: Tensor | None):
        self._pool, self._table, self._previous = pool, table, previous
        self.pos: int | Tensor = pos
        self._at = pos
        self._block = table.gather(1, (pos // pool.size)[:, None]).squeeze(1).long()
        self._offset = pos % pool.size

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None, scale: float | None) -> Tensor:
        """Store k and v (B, Hkv, 1, D) and return attention of q (B, H, 1, D) over each row's positions, (B, H, 1, D)."""
        from nanochat.kernels import paged_attention  # without a GPU there may be no Triton

        keys, values = self._pool.keys[layer], self._pool.values[layer]
        keys[self._block, self._offset] = k.squeeze(2).to(keys.dtype)
        values[self._block, self._offset] = v.squeeze(2).to(values.dtype)
        scale = scale or 1 / math.sqrt(q.size(-1))
        y = paged_attention.attend(q.squeeze(2).contiguous(), keys, values, self._table, self._at, scale, window)
        return y.unsqueeze(2)

    def before(self, x: Tensor) -> Tensor:
        """The embedding of each row's previous token, in place of x (B, 1, C)."""
        assert self._previous is not None
        return self._previous.to(x.dtype)


class DecodeGraphs:
    """Graphs of `model` over `pool`, captured when they are first needed. The pool's last block is scratch for padding."""

    def __init__(self, model: GPT, pool: Pool):
        self._model, self._pool = model, pool
        self._graphs: dict[int, _Graph] = {}

    def fits(self, rows: Sequence[Row]) -> bool:
        return len(rows) <= SIZES[-1]

    def run(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Logits (B, V) in fp32 after each row's last token, and the tokens (B,) drawn if `fits_graph(rows)`."""
        size = next(size for size in SIZES if size >= len(rows))
        if size not in self._graphs:
            self._graphs[size] = _Graph(self._model, self._pool, size)
        return self._graphs[size].run(rows)


class _Graph:
    """The graph of one number of rows: one step of the model, and the draw of the next tokens.

    Its inputs are two arrays. Integers: token, previous token, position, top_k and blocks of each row. Numbers: the inverse
    temperature and the random number of each row.
    """

    def __init__(self, model: GPT, pool: Pool, size: int):
        self._width = -(-model.config.sequence_len // pool.size) + 1
        self._model, self._pool = model, pool
        self._host = torch.zeros(size, BLOCKS_AT + self._width, dtype=torch.int32).pin_memory()
        self._host_numbers = torch.zeros(size, 2).pin_memory()
        self._host[:, BLOCKS_AT:] = pool.scratch
        self._integers, self._numbers = self._host.numpy(), self._host_numbers.numpy()  # writing these is far quicker
        self._inputs, self._input_numbers = self._host.to(pool.device), self._host_numbers.to(pool.device)
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles the kernels and sets up the libraries before the capture
            for _ in range(2):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: one that loads a model or writes a checkpoint.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = self._compute()

    def run(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        integers, numbers, n = self._integers, self._numbers, len(rows)
        integers[:n, 0] = [row.tokens[row.cached] for row in rows]
        integers[:n, 1] = [row.tokens[row.cached - 1] if row.cached else -1 for row in rows]
        integers[:n, 2] = [row.cached for row in rows]
        integers[:n, 3] = [row.request.sampling.top_k for row in rows]
        for i, row in enumerate(rows):
            integers[i, BLOCKS_AT : BLOCKS_AT + len(row.blocks)] = row.blocks
        integers[n:, 2], integers[n:, BLOCKS_AT] = 0, self._pool.scratch
        numbers[:n, 0], numbers[:n, 1] = inverse_temperatures(rows), [row.draw() for row in rows]
        self._inputs.copy_(self._host, non_blocking=True)
        self._input_numbers.copy_(self._host_numbers, non_blocking=True)
        self._graph.replay()
        logits, tokens = self._outputs
        return logits[:n], tokens[:n]

    @torch.no_grad()
    def _compute(self) -> tuple[Tensor, Tensor]:
        ids, before, pos, top_k = (self._inputs[:, i].long() for i in range(BLOCKS_AT))
        previous = None
        if self._model.config.smear:
            previous = self._model.embedded(before.clamp(min=0)[:, None]) * (before >= 0)[:, None, None]
        view = DecodeView(self._pool, self._inputs[:, BLOCKS_AT:].contiguous(), pos, previous)
        logits = softcap(self._model.lm_head(self._model.hidden(ids[:, None], view)[:, -1]))
        inverse_temperature, u = self._input_numbers[:, :1], self._input_numbers[:, 1:]
        return logits, sample_top_k(logits, inverse_temperature, u, top_k[:, None])
