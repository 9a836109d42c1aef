"""Run the model for the engine: rows of any lengths use one pool of KV blocks, and each gets the logits of its next token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.engine.cache import Pool, PoolView
from nanochat.engine.decode import DecodeGraphs
from nanochat.engine.dense import Dense, DenseView
from nanochat.engine.request import Row
from nanochat.engine.sampler import fits_graph, sample
from nanochat.model import GPT
from nanochat.model.loss import softcap


class Runner:
    """A model with matrices in `dtype`, and the KV pool.

    If the given model's matrices have another dtype, as in training, they are copied once instead of being cast in every pass.
    `refresh` copies them again after they have changed.
    """

    def __init__(self, model: GPT, dtype: torch.dtype, blocks: int, block_size: int, *, graphs: bool = True):
        self.source, self.device = model, model.get_device()
        self.model = model if is_narrow(model, dtype) else narrow(GPT(model.config).to(self.device), dtype)
        self._dense: Dense | None = None
        self.refresh()
        self.pool = Pool(model.config, blocks, block_size, dtype, self.device)
        self._graphs = DecodeGraphs(self.model, self.pool) if graphs and self.device.type == "cuda" else None
        if self.device.type == "cpu":
            self._dense = Dense(self.pool)

    @torch.no_grad()
    def refresh(self) -> None:
        if self.model is not self.source:
            for ours, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
                ours.copy_(theirs)
        if self._dense:
            self._dense.forget()

    def decode(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Run the model on the one uncached token of each row. Returns the logits (B, V) in fp32 and the next tokens (B,)."""
        if self._graphs and self._graphs.fits(rows):
            logits, tokens = self._graphs.run(rows)
            return logits, tokens if fits_graph(rows) else sample(logits, rows)
        dense = self._decode_dense(rows)
        logits = self.forward(rows, [1] * len(rows)) if dense is None else dense
        return logits, sample(logits, rows)

    @torch.no_grad()
    def forward(self, rows: Sequence[Row], new: Sequence[int]) -> Tensor:
        """Run the model on the next `new` tokens of each row. Returns the logits (B, V), in fp32, of the token after them.

        The rows' blocks must have room for the new tokens. Rows with fewer new tokens than others are padded.
        """
        longest = max(new)
        fed = [row.tokens[row.cached : row.cached + n] + [0] * (longest - n) for row, n in zip(rows, new, strict=True)]
        ids = torch.tensor(fed, device=self.device)
        cached = [row.cached for row in rows]
        view = PoolView(self.pool, [row.blocks for row in rows], cached, longest, self._previous(rows))
        last = torch.tensor([n - 1 for n in new], device=self.device)
        states = self.model.hidden(ids, view)[torch.arange(len(rows), device=self.device), last]
        return softcap(self.model.lm_head(states))

    @torch.no_grad()
    def _decode_dense(self, rows: Sequence[Row]) -> Tensor | None:
        """`forward` with one new token per row, on a CPU; None when the rows do not fit."""
        order = self._dense.arrange(rows) if self._dense else None
        if self._dense is None or order is None:
            return None
        placed = [rows[index] for index in order]
        ids = torch.tensor([[row.tokens[row.cached]] for row in placed])
        view = DenseView(self._dense, self.pool, placed, self._previous(placed))
        states = self.model.hidden(ids, view)[:, -1]
        view.finish()
        logits = softcap(self.model.lm_head(states))
        return logits if order == sorted(order) else logits[torch.tensor(order).argsort()]

    def _previous(self, rows: Sequence[Row]) -> Tensor | None:
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
