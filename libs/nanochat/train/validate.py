"""Validation figures during training: the same batches every time, tokenised once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nanochat.distributed import Ranks
from nanochat.eval.bpb import bits_per_byte
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import Loader


def bits(model: GPT, tokenizer: Tokenizer, loader: Loader, steps: int, ranks: Ranks) -> Callable[[], float]:
    """Bits per byte over the first `steps` batches of this rank's `loader`, all ranks together."""
    batches = [loader.next_batch() for _ in range(steps)]
    lengths = torch.from_numpy(tokenizer.token_bytes())
    return lambda: bits_per_byte(model, batches, lengths, ranks)


def mean_loss(model: GPT, loader: Loader, steps: int, ranks: Ranks) -> Callable[[], float]:
    """Mean over batches and ranks of the batches' mean cross entropy, nats, over the first `steps` batches of `loader`."""
    batches = [loader.next_batch() for _ in range(steps)]

    @torch.no_grad()
    def validate() -> float:
        losses = [model(inputs.to(ranks.device), targets.to(ranks.device)) for inputs, targets in batches]
        return ranks.sum(torch.stack(losses).mean().item())[0] / ranks.world_size

    return validate
