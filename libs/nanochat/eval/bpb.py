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
    """Return the cross entropy of the targets in nats, divided by ln 2 times their raw bytes.

    Both are summed over the `batches` of all ranks, so every rank must call this. A batch is (inputs, targets), both (B, T)
    int64; `token_bytes` (V,) is the raw byte length of each token, 0 for special tokens. Targets of -1 and special tokens add
    neither nats nor bytes. Returns inf when no byte is counted.
    """
    lengths = token_bytes.to("cpu", torch.int64)
    nats, total_bytes = 0.0, 0
    for inputs, targets in batches:
        with ranks.autocast():
            losses = model(inputs.to(ranks.device), targets.to(ranks.device), reduction="none")
        targets = targets.cpu()
        counted = lengths[targets.clamp(min=0)] * (targets >= 0)
        # Sum in float64: in fp32, a sum of 10 million losses is wrong in the fourth digit.
        nats += losses.to("cpu").double()[counted > 0].sum().item()
        total_bytes += int(counted.sum())
    all_nats, all_bytes = ranks.sum(nats, total_bytes)
    return all_nats / (math.log(2) * all_bytes) if all_bytes else math.inf
