"""The model: a pre-norm decoder with rotary positions, normed queries and keys, relu^2 and an untied, soft-capped head.

The architecture is that of the nanochat speedrun as of November 2025. Norms have no gain, linears have no bias, and there is no
dropout. Later findings are switches in `GPTConfig`, all off by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat import kernels
from nanochat.config import shape
from nanochat.config.shape import SMEAR_CHANNELS, GPTConfig
from nanochat.model.attention import Attention, Cache, Rotary
from nanochat.model.layers import Embedding, Linear, norm, relu_squared
from nanochat.model.loss import head_loss, softcap

Reduction = Literal["mean", "sum", "none"]

ROTARY_MARGIN = 10  # the tables cover this many times the training length, for long generations


class MLP(nn.Module):
    """down(relu(up(x))^2), four times as wide inside. x (B, T, C) to (B, T, C)."""

    # (x, up, down) -> the MLP's output in training; `fp8` and `accumulate` set it.
    implementation: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        if self.implementation is not None and torch.is_grad_enabled():
            return self.implementation(x, self.up.weight, self.down.weight)
        if kernels.usable(x):
            fused: Tensor = kernels.mlp.FusedMLP.apply(x.flatten(0, -2), self.up.weight, self.down.weight)
            return fused.view_as(x)
        y: Tensor = self.down(relu_squared(self.up(x)))
        return y


class Block(nn.Module):
    """Attention, then the MLP; each reads the normed residual stream and adds to it. x (B, T, C) to (B, T, C)."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        positions: Tensor | None,
        cache: Cache | None,
        value_embed: Tensor | None = None,
    ) -> Tensor:
        x = x + self.attn(norm(x), rotary, positions, cache, value_embed)
        y: Tensor = x + self.mlp(norm(x))
        return y


class Smear(nn.Module):
    """Adds part of the previous token's embedding to each token's embedding, so that the first layer already sees token pairs.

    The part is `amount` times a gate in (0, 1), computed from the first channels of the token itself.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.gate = Linear(min(SMEAR_CHANNELS, config.n_embd), 1)
        self.amount = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor, cache: Cache | None) -> Tensor:
        """x (B, T, C) to (B, T, C)."""
        before = F.pad(x[:, :-1], (0, 0, 1, 0)) if cache is None else cache.before(x)
        return x + self.amount * torch.sigmoid(self.gate(x[..., : self.gate.in_features])) * before


class GPT(nn.Module):
    """Token ids in, loss or logits out.

    `GPT(config)` only allocates its weights, on the default device. `init.init_weights` initialises them; the first loss is
    then ln(vocab_size).
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self.rotary = Rotary(config.head_dim, ROTARY_MARGIN * config.sequence_len, config.rope_base)
        layers, kv_width = range(config.n_layer), config.n_kv_head * config.head_dim
        self.value_embeds = nn.ModuleDict(
            {str(layer): Embedding(config.vocab_size, kv_width) for layer in layers if config.has_value_embed(layer)}
        )
        if config.residual_scalars:
            self.resid = nn.Parameter(torch.empty(config.n_layer))
            self.x0 = nn.Parameter(torch.empty(config.n_layer))
        if config.smear:
            self.smear = Smear(config)
        if config.backout:
            self.backout = nn.Parameter(torch.empty(()))

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        factors: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Without targets: the soft-capped logits (B, T, V) fp32 of ids (B, T) int64.

        With targets (B, T), where -1 is ignored: the cross entropy in nats, fp32. It is a scalar for "mean" (over the
        targets not ignored; 0 if all are) and for "sum", and (B, T) for "none". `factors` (B,) multiply the losses of each
        row in the "sum". With a cache, `ids` continue the cached tokens.
        """
        x = self.hidden(ids, cache)
        if targets is None:
            return softcap(self.lm_head(x))
        return head_loss(x, self.lm_head.weight, targets, reduction, factors)

    def hidden(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """The final normed hidden states (B, T, C), which the head receives."""
        rotary, positions = self.rotary.at(ids.size(1), cache)
        x = self.embedded(ids)
        if self.config.smear:
            x = self.smear(x, cache)
        start = middle = x
        for layer, block in enumerate(self.blocks):
            if self.config.residual_scalars:
                x = self.resid[layer] * x + self.x0[layer] * start
            x = block(x, rotary, positions, cache, self._value_embed(layer, ids))
            if layer == self.config.n_layer // 2:
                middle = x
        if self.config.backout:
            x = x - self.backout * middle
        return norm(x)

    def embedded(self, ids: Tensor) -> Tensor:
        """ids (B, T) to normed embeddings (B, T, C), the beginning of the residual stream."""
        return norm(_in_compute_dtype(self.embed(ids)))

    def _value_embed(self, layer: int, ids: Tensor) -> Tensor | None:
        """The value embedding (B, T, H_kv * D) of a layer, or None if the layer has none."""
        return _in_compute_dtype(self.value_embeds[str(layer)](ids)) if self.config.has_value_embed(layer) else None

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """FLOPs per token, forward and backward; `shape.flops_per_token` says how they are counted."""
        return shape.flops_per_token(self.config)

    def get_device(self) -> torch.device:
        return self.embed.weight.device


def _in_compute_dtype(x: Tensor) -> Tensor:
    # Autocast does not convert embedding look-ups; without this the whole residual stream would stay fp32.
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
