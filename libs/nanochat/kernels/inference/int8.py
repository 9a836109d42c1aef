"""Matrices in 8 bits, for products that are bound by reading them.

Each row of a matrix becomes whole multiples, -127 to 127, of a power of two. Such a multiple is exact in bf16, so the matrix itself can
hold the very same numbers: a pass that reads the matrix and one that reads the 8 bits compute the same model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 127
OFFSET = 128  # levels are stored without a sign: a kernel then makes a float of one with two cheap instructions


@dataclass(frozen=True, slots=True)
class Int8:
    """A matrix (N, K): `levels` (N, K) uint8 holds each multiple plus OFFSET, `steps` (N,) fp32 the power of two of each row."""

    levels: Tensor
    steps: Tensor


@torch.no_grad()
def round_(matrix: Tensor) -> Int8:
    """Round matrix (N, K) in place, to the nearest multiple. A row's step is the least power of two that reaches its largest weight."""
    wide = matrix.float()
    least = wide.abs().amax(1) / MOST
    mantissa, exponent = torch.frexp(least)
    steps = torch.ldexp(torch.ones_like(least), exponent - (mantissa == 0.5).int())
    levels = (wide / steps[:, None]).round_()
    matrix.copy_(levels * steps[:, None])
    return Int8((levels + OFFSET).to(torch.uint8), steps)
