"""CUDA graphs of the fused model: a step of any size costs a few copies and one launch from Python.

Every graph serves a number of rows or tokens up to a power of two; what is left over is padding, which writes to the pool's scratch
block. A graph reads its inputs from pinned memory, of which there are two sets: the host prepares a step while the GPU still works on
the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nanochat.engine.cache import Pool
from nanochat.engine.fused import DecodeInputs, Fused, PromptInputs, normed
from nanochat.engine.request import Row
from nanochat.engine.runner import MAX_DRAWN, MAX_READ, Held
from nanochat.engine.sampler import inverse_temperatures
from nanochat.kernels.inference import prefill
from nanochat.kernels.launch import compiled_ahead
from nanochat.model import GPT

LEAST_TOKENS = 64  # of a pass over prompts: a smaller one is hardly faster


class Graphs:
    """Graphs of `model` over `pool`, captured when they are first needed; without `capture`, plain calls.

    A pass over prompts has at most `tokens` tokens, and a row at most `context`. Rows that decode draw into the first half of `drawn`
    (2 x MAX_DRAWN,) int64, rows whose prompt has just been read into the second half. The next step takes its tokens from there.
    """

    def __init__(self, model: GPT, pool: Pool, tokens: int, context: int | None, *, capture: bool, int8: bool):
        self.drawn = torch.zeros(2 * MAX_DRAWN, dtype=torch.int64, device=pool.device)
        self.pool, self.capture = pool, capture
        self.fused = Fused(model, pool, self.drawn, int8=int8)
        self.width = -(-(context or model.config.sequence_len) // pool.size) + 1  # blocks of a row
        self.stream = torch.zeros(_size(tokens), model.config.n_embd, dtype=model.embed.weight.dtype, device=pool.device)
        self.memory = torch.cuda.graph_pool_handle()  # one for all: their passes never overlap
        self._decodes: dict[int, _Decode] = {}
        self._reads: dict[int, _Read] = {}
        self._heads: dict[int, _Head] = {}

    def warm_up(self, rows: int) -> None:
        """Capture everything that up to `rows` rows can need, so that no request waits for it."""
        if not self.capture:
            return
        graphs = [
            *(self._decode(size).graph for size in _sizes(1, rows)),
            *(self._head(size).graph for size in _sizes(1, rows)),
            *(self._read(size).graph for size in _sizes(LEAST_TOKENS, self.stream.size(0))),
        ]
        with compiled_ahead(self.pool.device):
            for graph in graphs:
                graph.compute()
        for graph in graphs:
            graph.capture()

    def decode(self, rows: Sequence[Row]) -> Tensor:
        """Draw the next token of each row that decodes, into slots which the rows remember. Returns the logits (B, V) fp32."""
        logits = self._decode(_size(len(rows))).run(rows)
        for slot, row in enumerate(rows):
            row.slot = slot
        return logits

    def read(self, rows: Sequence[Held], new: Sequence[int]) -> None:
        """Read the next `new` tokens of each row's prompt, for at most MAX_READ rows."""
        self._read(max(_size(sum(new)), LEAST_TOKENS)).run(rows, new)

    @torch.no_grad()
    def states(self, numbers: Tensor) -> Tensor:
        """The normed states (N, C) of some tokens of the latest `read`."""
        return normed(self.stream.index_select(0, numbers))

    def draw(self, last: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Draw each row's token after the token numbered `last` of the latest `read`. Returns the logits (B, V) fp32."""
        logits = self._head(_size(len(rows))).run(last, rows)
        for slot, row in enumerate(rows):
            row.slot = MAX_DRAWN + slot
        return logits

    def _decode(self, size: int) -> _Decode:
        if size not in self._decodes:
            self._decodes[size] = _Decode(self, size)
        return self._decodes[size]

    def _read(self, size: int) -> _Read:
        if size not in self._reads:
            self._reads[size] = _Read(self, size)
        return self._reads[size]

    def _head(self, size: int) -> _Head:
        if size not in self._heads:
            self._heads[size] = _Head(self, size)
        return self._heads[size]


class _Feed:
    """An array of the device, written by the host through pinned memory."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, fill: int, device: torch.device):
        self._pinned = [torch.full(shape, fill, dtype=dtype).pin_memory() for _ in range(2)]
        self._copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        self._turn = 0
        self.device = self._pinned[0].to(device)

    def host(self) -> NDArray[np.generic]:
        """The host's array to fill; it holds what was sent the time before last."""
        self._turn ^= 1
        self._copied[self._turn].synchronize()
        return self._pinned[self._turn].numpy()

    def send(self) -> None:
        self.device.copy_(self._pinned[self._turn], non_blocking=True)
        self._copied[self._turn].record()


class _Captured:
    """`compute` as a graph, or, without `capture`, as it is. Calling it returns what `compute` returned, computed anew."""

    def __init__(self, compute: Callable[[], Tensor], graphs: Graphs):
        self.compute, self._graphs = compute, graphs
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def capture(self) -> torch.cuda.CUDAGraph:
        if self._graph is not None:
            return self._graph
        drawn, stream = self._graphs.drawn, torch.cuda.Stream()  # type: ignore[no-untyped-call]
        kept = drawn.clone()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles the kernels and sets up the libraries before the capture
            self.compute()
            drawn.copy_(kept)  # rows wait for what the step before has drawn
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the GPU meanwhile: one that loads a model or writes a checkpoint.
        with torch.cuda.graph(graph, pool=self._graphs.memory, capture_error_mode="thread_local"):
            self._output = self.compute()
        self._graph = graph
        return graph

    def __call__(self) -> Tensor:
        if not self._graphs.capture:
            return self.compute()
        self.capture().replay()
        return self._output


class _Decode:
    """One new token for each of up to `size` rows. Columns of the integers: see `DecodeInputs`, then the blocks."""

    COLUMNS = 5

    def __init__(self, graphs: Graphs, size: int):
        pool = graphs.pool
        self._integers = _Feed((size, self.COLUMNS + graphs.width), torch.int32, 0, pool.device)
        self._numbers = _Feed((size, 2), torch.float32, 0, pool.device)
        self._scratch = pool.scratch
        whole = self._integers.device
        whole[:, self.COLUMNS] = pool.scratch
        ids, source, before, pos, top_k = whole[:, : self.COLUMNS].unbind(1)
        inputs = DecodeInputs(ids, source, before, pos, top_k, whole[:, self.COLUMNS :], self._numbers.device)
        self.graph = _Captured(lambda: graphs.fused.decode(inputs, slice(0, size)), graphs)

    def run(self, rows: Sequence[Row]) -> Tensor:
        n, at = len(rows), self.COLUMNS
        integers, numbers = self._integers.host(), self._numbers.host()
        ids = [row.next_token for row in rows]
        integers[:n, 0] = [id_ or 0 for id_ in ids]
        integers[:n, 1] = [row.slot if id_ is None else -1 for row, id_ in zip(rows, ids, strict=True)]
        integers[:n, 2] = [row.tokens[row.cached - 1] if row.cached else -1 for row in rows]
        integers[:n, 3] = [row.cached for row in rows]
        integers[:n, 4] = [row.request.sampling.top_k for row in rows]
        for i, row in enumerate(rows):
            integers[i, at : at + len(row.blocks)] = row.blocks
        integers[n:, :at] = (0, -1, -1, 0, 0)
        integers[n:, at] = self._scratch
        numbers[:n, 0], numbers[:n, 1] = inverse_temperatures(rows), [row.draw() for row in rows]
        numbers[n:] = 0
        self._integers.send()
        self._numbers.send()
        return self.graph()[:n]


class _Read:
    """Up to `size` new tokens of several rows, one after another; the result goes to the beginning of the graphs' `stream`."""

    def __init__(self, graphs: Graphs, size: int):
        pool = graphs.pool
        self._tokens = _Feed((4, size), torch.int32, 0, pool.device)  # id, previous id, row, position
        self._table = _Feed(
            (MAX_READ + 1, graphs.width), torch.int32, pool.scratch, pool.device
        )  # the last row is that of padding
        self._pieces = _Feed((size // prefill.QUERIES + MAX_READ, 3), torch.int32, 0, pool.device)
        self._tokens.device[2] = MAX_READ
        ids, before, row, pos = self._tokens.device.unbind()
        inputs = PromptInputs(ids, before, row, pos, self._table.device, self._pieces.device)

        def compute() -> Tensor:
            return graphs.stream[:size].copy_(graphs.fused.read(inputs))

        self.graph = _Captured(compute, graphs)

    def run(self, rows: Sequence[Held], new: Sequence[int]) -> None:
        tokens, table, pieces = self._tokens.host(), self._table.host(), self._pieces.host()
        begin = piece = 0
        pieces[:] = 0
        for i, (row, count) in enumerate(zip(rows, new, strict=True)):
            end, known = begin + count, row.cached
            tokens[0, begin:end] = row.tokens[known : known + count]
            tokens[1, begin] = row.tokens[known - 1] if known else -1
            tokens[1, begin + 1 : end] = tokens[0, begin : end - 1]
            tokens[2, begin:end] = i
            tokens[3, begin:end] = np.arange(known, known + count)
            table[i, : len(row.blocks)] = row.blocks
            for first in range(begin, end, prefill.QUERIES):
                pieces[piece] = i, first, min(prefill.QUERIES, end - first)
                piece += 1
            begin = end
        tokens[:, begin:] = np.array([[0], [-1], [MAX_READ], [0]])
        for feed in (self._tokens, self._table, self._pieces):
            feed.send()
        self.graph()


class _Head:
    """The tokens after up to `size` of the tokens that were read."""

    def __init__(self, graphs: Graphs, size: int):
        stream, fused = graphs.stream, graphs.fused
        self._integers = _Feed((2, size), torch.int32, 0, stream.device)  # number of the token, top_k
        self._numbers = _Feed((size, 2), torch.float32, 0, stream.device)
        last, top_k = self._integers.device
        slots = slice(MAX_DRAWN, MAX_DRAWN + size)
        self.graph = _Captured(lambda: fused.head(stream.index_select(0, last), self._numbers.device, top_k, slots), graphs)

    def run(self, last: Sequence[int], rows: Sequence[Row]) -> Tensor:
        n = len(rows)
        integers, numbers = self._integers.host(), self._numbers.host()
        integers[0, :n], integers[1, :n] = last, [row.request.sampling.top_k for row in rows]
        numbers[:n, 0], numbers[:n, 1] = inverse_temperatures(rows), [row.draw() for row in rows]
        self._integers.send()
        self._numbers.send()
        return self.graph()[:n]


def _size(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _sizes(least: int, most: int) -> Iterator[int]:
    size = _size(least)
    while size < 2 * most:
        yield size
        size *= 2
