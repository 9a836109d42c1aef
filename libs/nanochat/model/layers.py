"""torch's layers without the weights they draw at birth: `init_weights` or a checkpoint gives those.

Drawing them costs seconds at d20, and on the meta device it loads torch's whole compiler.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Linear):
    """x (..., in) to (..., out), no bias. The weight (out, in) is uninitialised."""

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, bias=False)

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """ids (...) to (..., width). The weight is uninitialised."""

    def reset_parameters(self) -> None:
        pass


def norm(x: Tensor) -> Tensor:
    """x over the root mean square of its last dimension (Zhang and Sennrich 2019); epsilon is the dtype's own."""
    return F.rms_norm(x, (x.size(-1),)).to(x.dtype)
