"""The model as a chain of few kernels, without gradients: one new token of many rows, or many tokens of prompts.

It computes what `model.GPT` computes, from the same weights, up to the order of roundings. A single row is bound by reading the
weights, so it goes through products of our own (`kernels.inference.vector`), and may read them in 8 bits. Several rows go through cuBLAS.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.config.shape import GPTConfig
from nanochat.engine.cache import Pool
from nanochat.kernels import mlp
from nanochat.kernels.inference import attention, draw, prefill, residual, vector
from nanochat.kernels.inference.int8 import Int8, round_
from nanochat.model.attention import GATE_RANGE, Attention
from nanochat.model.gpt import GPT, Block
from nanochat.model.layers import EPS, Embedding
from nanochat.model.loss import SOFTCAP


def supports(config: GPTConfig, device: torch.device) -> bool:
    """Whether the kernels can run the model: on CUDA, with heads whose width is a power of two of at least 16."""
    return device.type == "cuda" and config.head_dim >= 16 and config.head_dim & (config.head_dim - 1) == 0


@dataclass(frozen=True, slots=True)
class DecodeInputs:
    """One new token for each of B rows. `ids`, `source`, `before`, `pos` and `top_k` (B,) int32, `table` (B, W) int32.

    `source` and `before` are described in `residual.embed` and `residual.smear`, `numbers` (B, 2) in `draw.draw`.
    """

    ids: Tensor
    source: Tensor
    before: Tensor
    pos: Tensor
    top_k: Tensor
    table: Tensor
    numbers: Tensor


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """T new tokens of several rows, one after another. `ids`, `before`, `row` and `pos` (T,) int32, the others as in `prefill`."""

    ids: Tensor
    before: Tensor
    row: Tensor
    pos: Tensor
    table: Tensor
    pieces: Tensor


@dataclass(frozen=True, slots=True)
class _Workspaces:
    """What the kernels of a step with some number of rows leave for each other. They outlive the step: its counters end at zero."""

    attention: attention.Workspace
    draw: draw.Workspace
    single: vector.Workspace
    squares: Tensor  # sums of squares of the residual stream: of each row, or of each tile of a single row

    @classmethod
    def of(cls, config: GPTConfig, rows: int, device: torch.device) -> _Workspaces:
        return cls(
            attention.Workspace(rows, config.n_head, config.head_dim, device),
            draw.Workspace(rows, config.vocab_size, device),
            vector.Workspace(device),
            torch.empty(max(rows, vector.MAX_TILES), dtype=torch.float32, device=device),
        )


class Fused:
    """`model`, whose matrices have one dtype, over `pool`. `drawn` (D,) int64 holds the tokens drawn last, by slot.

    The weights of queries, keys and values are laid side by side, and the model's own parameters become views of them. With `int8`,
    the model's large matrices are rounded in place, and a single row reads them in 8 bits.
    """

    def __init__(self, model: GPT, pool: Pool, drawn: Tensor, *, int8: bool):
        self.config, self._model, self._pool, self._drawn = model.config, model, pool, drawn
        self._blocks = [block for block in model.blocks if isinstance(block, Block)]
        self._qkv = [_joined(attn.q.weight, attn.k.weight, attn.v.weight) for attn in (block.attn for block in self._blocks)]
        self._short: dict[int, Int8] = {}  # by the address of the matrix
        for matrix in self._large() if int8 else ():
            self._short[matrix.data_ptr()] = round_(matrix)
        self._workspaces: dict[int, _Workspaces] = {}
        self._hopper = torch.cuda.get_device_capability(pool.device)[0] == 9 and model.embed.weight.dtype is torch.bfloat16

    @torch.no_grad()
    def refresh(self) -> None:
        """Round anew after the model's matrices have changed. Graphs go on reading from the same memory."""
        for matrix in self._large() if self._short else ():
            rounded, kept = round_(matrix), self._short[matrix.data_ptr()]
            kept.levels.copy_(rounded.levels)
            kept.steps.copy_(rounded.steps)

    @torch.no_grad()
    def decode(self, inputs: DecodeInputs, slots: slice) -> Tensor:
        """Draw each row's next token into the slots of `drawn`. Returns the logits (B, V) in fp32."""
        rows = inputs.ids.numel()
        work = self._work(rows)
        squares, single = work.squares[:rows], work.single if rows == 1 else None
        tokens, x = residual.embed(inputs.ids, inputs.source, self._drawn, self._model.embed.weight, squares, EPS)
        stream = vector.Stream(x, work.squares, tiles=1)
        if self.config.smear:
            self._smear(x, inputs.before, squares)
        start, middle = self._kept(x), x
        for layer, block in enumerate(self._blocks):
            self._mixed(layer, stream, start, squares)
            attn, raw = self._blocks[layer].attn, single is None
            heads = (rows, -1, self.config.head_dim)
            qkv = self._into(self._qkv[layer], stream, single).view(heads)
            embedded = self.config.has_value_embed(layer)
            if embedded:
                self._add_value_embed(layer, qkv, x, tokens, norm=raw)
            y = attention.attend(
                qkv, x if raw and not embedded else None, self._rotary, self._pool.keys[layer], self._pool.values[layer],
                inputs.table, inputs.pos, work.attention, heads=self.config.n_head, scale=self._scale(attn), window=attn.window, eps=EPS,
            )  # fmt: skip
            self._onto(attn.out.weight, y.view(rows, -1), stream, single)
            up = self._into(block.mlp.up.weight, stream, single, relu2=True)
            self._onto(block.mlp.down.weight, up, stream, single)
            if layer == self.config.n_layer // 2 and self.config.backout:
                middle = x.clone()
        if self.config.backout:
            residual.mix(x, middle, None, self._model.backout, squares, sign=-1)
        return self.head(x, inputs.numbers, inputs.top_k, slots)

    @torch.no_grad()
    def read(self, inputs: PromptInputs) -> Tensor:
        """The residual stream (T, C) after the last layer."""
        squares = torch.empty(inputs.ids.numel(), dtype=torch.float32, device=self._pool.device)
        nowhere = torch.full_like(inputs.row, -1)
        tokens, x = residual.embed(inputs.ids, nowhere, self._drawn, self._model.embed.weight, squares, EPS)
        if self.config.smear:
            self._smear(x, inputs.before, squares)
        start, middle = self._kept(x), x
        for layer, block in enumerate(self._blocks):
            if self.config.residual_scalars:
                residual.mix(x, start, self._model.resid[layer], self._model.x0[layer], squares)
            attn = self._blocks[layer].attn
            keys, values = self._pool.keys[layer], self._pool.values[layer]
            qkv = F.linear(normed(x), self._qkv[layer]).view(x.size(0), -1, self.config.head_dim)
            if self.config.has_value_embed(layer):
                self._add_value_embed(layer, qkv, x, tokens, norm=False)
            where = (inputs.pos, inputs.table)
            q = prefill.place(qkv, self._rotary, inputs.row, *where, keys, values, heads=self.config.n_head, eps=EPS)
            y = prefill.attend(q, keys, values, inputs.pieces, *where, scale=self._scale(attn), window=attn.window)
            torch.addmm(x, y.view(x.size(0), -1), attn.out.weight.T, out=x)
            torch.addmm(x, self._up(normed(x), block.mlp.up.weight), block.mlp.down.weight.T, out=x)
            if layer == self.config.n_layer // 2 and self.config.backout:
                middle = x.clone()
        if self.config.backout:
            residual.mix(x, middle, None, self._model.backout, squares, sign=-1)
        return x

    @torch.no_grad()
    def head(self, x: Tensor, numbers: Tensor, top_k: Tensor, slots: slice) -> Tensor:
        """Draw the token after each row of the stream x (B, C) into the slots of `drawn`. Returns the logits (B, V) in fp32."""
        x, weight = normed(x), self._model.lm_head.weight
        if x.size(0) == 1:
            logits = torch.empty(1, weight.size(0), dtype=torch.float32, device=x.device)
            vector.product(x, self._read_as(weight), logits, self._work(1).single)
        else:
            logits = F.linear(x, weight) if x.dtype is torch.float32 else torch.mm(x, weight.T, out_dtype=torch.float32)
        draw.draw(logits, SOFTCAP, numbers, top_k, self._drawn[slots], self._work(x.size(0)).draw)
        return logits

    def _large(self) -> Iterator[Tensor]:
        yield from self._qkv
        for block in self._blocks:
            yield from (block.attn.out.weight, block.mlp.up.weight, block.mlp.down.weight)
        yield self._model.lm_head.weight

    def _read_as(self, matrix: Tensor) -> Tensor | Int8:
        """What a single row reads in place of a matrix."""
        return self._short.get(matrix.data_ptr(), matrix)

    def _work(self, rows: int) -> _Workspaces:
        if rows not in self._workspaces:
            self._workspaces[rows] = _Workspaces.of(self.config, rows, self._pool.device)
        return self._workspaces[rows]

    @property
    def _rotary(self) -> tuple[Tensor, Tensor]:
        return self._model.rotary.cos, self._model.rotary.sin

    def _scale(self, attn: Attention) -> float:
        return attn.scale or 1 / math.sqrt(self.config.head_dim)

    def _kept(self, x: Tensor) -> Tensor:
        return x.clone() if self.config.residual_scalars else x

    def _smear(self, x: Tensor, before: Tensor, squares: Tensor) -> None:
        smear = self._model.smear
        residual.smear(x, before, self._model.embed.weight, smear.gate.weight, smear.amount, squares, EPS)

    def _mixed(self, layer: int, stream: vector.Stream, start: Tensor, squares: Tensor) -> None:
        if self.config.residual_scalars:
            residual.mix(stream.x, start, self._model.resid[layer], self._model.x0[layer], squares)
            stream.tiles = 1

    def _add_value_embed(self, layer: int, qkv: Tensor, x: Tensor, tokens: Tensor, *, norm: bool) -> None:
        table, gate = self._model.value_embeds[str(layer)], self._blocks[layer].attn.value_gate.weight
        assert isinstance(table, Embedding)
        residual.add_value_embed(
            qkv, x, tokens, table.weight, gate, heads=self.config.n_head, scale=GATE_RANGE, eps=EPS, norm=norm
        )

    def _into(self, weight: Tensor, stream: vector.Stream, single: vector.Workspace | None, *, relu2: bool = False) -> Tensor:
        """A product of the normed stream. With several rows it is not normed yet unless relu^2 was asked for."""
        if single is not None:
            out = stream.x.new_empty(1, weight.size(0))
            return vector.product(stream.x, self._read_as(weight), out, single, normed=stream, relu2=relu2, eps=EPS)
        out = F.linear(stream.x, weight)
        return residual.relu_squared(out, stream.x, EPS) if relu2 else out

    def _onto(self, weight: Tensor, y: Tensor, stream: vector.Stream, single: vector.Workspace | None) -> None:
        """Add a product to the stream."""
        if single is not None:
            vector.product(y, self._read_as(weight), stream.x, single, onto=stream)
        else:
            torch.addmm(stream.x, y, weight.T, out=stream.x)

    def _up(self, x: Tensor, weight: Tensor) -> Tensor:
        if self._hopper and x.size(0) >= 256 and weight.size(0) % 64 == 0 and weight.size(1) % 64 == 0:
            y: Tensor = mlp.up_relu_squared(x, weight)
            return y
        return residual.relu_squared(F.linear(x, weight))


def normed(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),), eps=EPS)


def _joined(*weights: Tensor) -> Tensor:
    """The matrices below each other in one; each becomes a view of its part."""
    whole = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, torch.split(whole, [weight.size(0) for weight in weights]), strict=True):
        weight.data = part
    return whole
