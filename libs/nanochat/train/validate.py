"""Validation figures during training, over the same batches every time. These are tokenised once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nanochat.distributed import Ranks
from nanochat.eval.bpb import bits_per_byte
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import Loader


def bits(model: GPT, tokenizer: Tokenizer, loader: Loader, steps: int, ranks: Ranks) -> Callable[[], float]:
    """Return a function that computes bits per byte over the first `steps` batches of every rank's `loader`."""
    batches = [loader.next_batch() for _ in range(steps)]
    lengths = torch.from_numpy(tokenizer.token_bytes())
    return lambda: bits_per_byte(model, batches, lengths, ranks)


def mean_loss(model: GPT, loader: Loader, steps: int, ranks: Ranks) -> Callable[[], float]:
    """Return a function that computes the mean loss over the first `steps` batches of every rank's `loader`.

    The mean is taken over batches and ranks, of each batch's mean cross entropy in nats.
    """
    batches = [loader.next_batch() for _ in range(steps)]

    @torch.no_grad()
    def validate() -> float:
        losses = [model(inputs.to(ranks.device), targets.to(ranks.device)) for inputs, targets in batches]
        return ranks.sum(torch.stack(losses).mean().item())[0] / ranks.world_size

    return validate
