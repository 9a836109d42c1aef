"""How a model is compiled for training: in one place, for the stages and for what measures them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# The sum of the residual stream and a layer's output feeds the next norm and the next sum. Left to itself (4) the compiler reads
# up to five tensors to make it anew before it writes it down: 4.75 passes over a tensor for each norm of d20, where 4 will do.
OPTIONS: dict[str, Any] = {"realize_reads_threshold": 2}


def compiled(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`model` for inputs of one shape; another shape compiles anew."""
    return torch.compile(model, dynamic=False, options=OPTIONS)
