"""Validation figures during training, over the same batches every time. These are tokenised once."""

from __future__ import annotations

from collections.abc import Callable

import torch

from nanochat.distributed import Ranks
from nanochat.eval.bpb import bits_per_byte
from nanochat.model import GPT
from nanochat.model.loss import IGNORE
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import Loader


def bits(model: GPT, tokenizer: Tokenizer, loader: Loader, steps: int, ranks: Ranks) -> Callable[[int], float]:
    """Return a function that computes bits per byte over the first `steps` batches of every rank's `loader`."""
    batches = [loader.next_batch() for _ in range(steps)]
    lengths = torch.from_numpy(tokenizer.token_bytes())
    return lambda step: bits_per_byte(model, batches, lengths, ranks)


def mean_loss(model: GPT, loader: Loader, steps: int, ranks: Ranks) -> Callable[[int], float]:
    """Return a function that computes the mean loss over the first `steps` batches of every rank's `loader`.

    It is the mean over all targets of all ranks, in nats, so it does not depend on how the rows are divided into batches.
    """
    batches = [loader.next_batch() for _ in range(steps)]
    counted = sum(int((targets != IGNORE).sum()) for _, targets in batches)

    @torch.no_grad()
    def validate(step: int) -> float:
        losses = [model(inputs.to(ranks.device), targets.to(ranks.device), reduction="sum") for inputs, targets in batches]
        total, targets = ranks.sum(torch.stack(losses).double().sum().item(), counted)
        return total / targets

    return validate
