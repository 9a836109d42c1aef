"""The model: a pre-norm decoder with rotary positions, normed queries and keys, relu^2 and an untied, soft-capped head.

Architecture of the nanochat speedrun (facts: November 2025). Norms have no gain, linears no bias; nothing is dropped out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from nanochat import kernels, shape
from nanochat.model import init
from nanochat.model.attention import Attention, KVCache, Rotary
from nanochat.model.layers import Embedding, Linear, norm, relu_squared
from nanochat.model.loss import head_loss, softcap
from nanochat.shape import GPTConfig

Reduction = Literal["mean", "sum", "none"]

ROTARY_MARGIN = 10  # the tables reach this many times further than training does, for long generations


class MLP(nn.Module):
    function: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None  # of x, `up` and `down`, for training: set for fp8

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.up = Linear(config.n_embd, 4 * config.n_embd)
        self.down = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        if self.function is not None and torch.is_grad_enabled():
            return self.function(x, self.up.weight, self.down.weight)
        if kernels.usable(x):
            fused: Tensor = kernels.mlp.FusedMLP.apply(x.flatten(0, -2), self.up.weight, self.down.weight)
            return fused.view_as(x)
        y: Tensor = self.down(relu_squared(self.up(x)))
        return y


class Block(nn.Module):
    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], positions: Tensor | None, cache: KVCache | None) -> Tensor:
        x = x + self.attn(norm(x), rotary, positions, cache)
        y: Tensor = x + self.mlp(norm(x))
        return y


class GPT(nn.Module):
    """Token ids in, loss or logits out.

    `GPT(config)` only allocates, on the default device; `init_weights()` draws a fresh model, whose first loss is
    ln(vocab_size).
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.embed = Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.lm_head = Linear(config.n_embd, config.vocab_size)
        self.rotary = Rotary(config.head_dim, ROTARY_MARGIN * config.sequence_len)

    def forward(
        self, ids: Tensor, targets: Tensor | None = None, *, reduction: Reduction = "mean", cache: KVCache | None = None
    ) -> Tensor:
        """ids (B, T) int64. Without targets: logits (B, T, V) in fp32, soft-capped.

        With targets (B, T), where -1 is ignored: the cross entropy in nats, fp32; a scalar for "mean" (over the targets that
        count; 0 when none does) and "sum", (B, T) for "none". With a cache, `ids` continue what the cache holds.
        """
        x = self.hidden(ids, cache)
        if targets is None:
            return softcap(self.lm_head(x))
        return head_loss(x, self.lm_head.weight, targets, reduction)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """The final normed states (B, T, C), before the head."""
        rotary, positions = self.rotary.at(ids.size(1), cache)
        x = norm(_in_compute_dtype(self.embed(ids)))
        for block in self.blocks:
            x = block(x, rotary, positions, cache)
        return norm(x)

    def init_weights(self) -> None:
        """Fresh weights from torch's global generator; the caller seeds it."""
        init.init_weights(self)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        return shape.flops_per_token(self.config)

    def get_device(self) -> torch.device:
        return self.embed.weight.device


def _in_compute_dtype(x: Tensor) -> Tensor:
    # An embedding look-up is not an operation autocast knows: without this the whole residual stream would stay fp32.
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
