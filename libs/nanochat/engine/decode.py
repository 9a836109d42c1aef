"""Decoding on a GPU: one CUDA graph per number of rows, so that a step costs no launches from Python."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.engine.cache import Pool
from nanochat.engine.request import Row
from nanochat.model import GPT
from nanochat.model.loss import softcap

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

    def __init__(self, model: GPT, pool: Pool, scratch: int):
        self._model, self._pool, self._scratch = model, pool, scratch
        self._width = -(-model.config.sequence_len // pool.size) + 1
        self._graphs: dict[int, _Graph] = {}

    def fits(self, rows: Sequence[Row]) -> bool:
        return len(rows) <= SIZES[-1]

    def forward(self, rows: Sequence[Row]) -> Tensor:
        """Logits (B, V) in fp32 after each row's last token."""
        size = next(size for size in SIZES if size >= len(rows))
        if size not in self._graphs:
            self._graphs[size] = _Graph(self._model, self._pool, size, self._width, self._scratch)
        return self._graphs[size].run(rows)


class _Graph:
    """The graph of one number of rows. Its inputs are one array: token, previous token, position and blocks of each row."""

    def __init__(self, model: GPT, pool: Pool, size: int, width: int, scratch: int):
        self._scratch, self._width = scratch, width
        self._host = torch.zeros(size, 3 + width, dtype=torch.int32).pin_memory()
        self._host[:, 3:] = scratch
        self._inputs = self._host.to(pool.device)
        self._model, self._pool = model, pool
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles the kernels and sets up the libraries before the capture
            for _ in range(2):
                self._compute()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self._compute()

    def run(self, rows: Sequence[Row]) -> Tensor:
        host = self._host
        for i, row in enumerate(rows):
            before = row.tokens[row.cached - 1] if row.cached else -1
            held = row.blocks[: self._width]
            host[i, : 3 + len(held)] = torch.tensor([row.tokens[row.cached], before, row.cached, *held], dtype=torch.int32)
        host[len(rows) :, 2] = 0
        host[len(rows) :, 3] = self._scratch
        self._inputs.copy_(host, non_blocking=True)
        self._graph.replay()
        return self._logits[: len(rows)]

    @torch.no_grad()
    def _compute(self) -> Tensor:
        ids, before, pos = (self._inputs[:, i].long() for i in range(3))
        previous = None
        if self._model.config.smear:
            previous = self._model.embedded(before.clamp(min=0)[:, None]) * (before >= 0)[:, None, None]
        view = DecodeView(self._pool, self._inputs[:, 3:].contiguous(), pos, previous)
        return softcap(self._model.lm_head(self._model.hidden(ids[:, None], view)[:, -1]))
