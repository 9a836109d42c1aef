"""Bits per byte: a loss that does not depend on the tokenizer's vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nanochat.distributed import Ranks
from nanochat.model import GPT


@torch.no_grad()
def bits_per_byte(model: GPT, batches: Iterable[tuple[Tensor, Tensor]], token_bytes: Tensor, ranks: Ranks) -> float:
    """Nats of the targets over ln 2 times their raw bytes, summed over this rank's `batches` and over all ranks.

    batches: (inputs, targets), both (B, T) int64; token_bytes: (V,) raw byte length of each token, 0 for special ones.
    Targets of -1 and special tokens add neither nats nor bytes. inf when no byte is counted. Every rank must call it.
    """
    lengths = token_bytes.to("cpu", torch.int64)
    nats, total_bytes = 0.0, 0
    for inputs, targets in batches:
        with ranks.autocast():
            losses = model(inputs.to(ranks.device), targets.to(ranks.device), reduction="none")
        targets = targets.cpu()
        counted = lengths[targets.clamp(min=0)] * (targets >= 0)
        # In float64: a sum of 10 million losses in fp32 is off in the fourth digit.
        nats += losses.to("cpu").double()[counted > 0].sum().item()
        total_bytes += int(counted.sum())
    all_nats, all_bytes = ranks.sum(nats, total_bytes)
    return all_nats / (math.log(2) * all_bytes) if all_bytes else math.inf
