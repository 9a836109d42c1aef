"""Sampling with one random stream per row: a row's draws depend on the seed and the row's number, not on the other rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw a token. Temperature 0 takes the most likely one; top_k 0 and top_p 1 exclude no token.

    Raises ValueError for a setting that is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 or more, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or more, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")


def uniforms(seed: int, rows: int, steps: int) -> np.ndarray:
    """Return (rows, steps) float32 numbers in [0, 1). Row r is the stream of Philox with key (seed, r)."""
    keys = np.array([(seed % 2**64, row) for row in range(rows)], dtype=np.uint64)
    return np.stack([np.random.Generator(np.random.Philox(key=key)).random(steps, np.float32) for key in keys])


def sample(logits: Tensor, u: Tensor, how: Sampling) -> Tensor:
    """Draw one token per row, (N,) int64, from logits (N, V) in fp32 by inverse transform sampling with u (N,) in [0, 1).

    Probabilities are summed in vocabulary order, not sorted. A rounding error in the logits therefore shifts the bounds
    between tokens by a similar amount, but never reorders them.
    """
    if how.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits / how.temperature
    if 0 < how.top_k < logits.size(-1):
        least = logits.topk(how.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)  # keeps tokens that tie with the k-th
    probs = logits.softmax(dim=-1)
    if how.top_p < 1:
        probs = probs.masked_fill(probs < _nucleus_floor(probs, how.top_p), 0.0)
    bounds = probs.cumsum(dim=-1)
    total = bounds[:, -1:]
    # Keep the point below the total even after rounding, so that there is always a bound above it.
    point = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return (bounds > point).int().argmax(dim=-1)


def _nucleus_floor(probs: Tensor, top_p: float) -> Tensor:
    """The least probability, (N, 1), within the smallest set of most likely tokens whose sum reaches top_p.

    Source: nucleus sampling, Holtzman et al. 2020.
    """
    ordered = probs.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    return ordered.masked_fill(before >= top_p, torch.inf).amin(dim=-1, keepdim=True)
