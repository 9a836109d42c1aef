"""How a model is compiled for training. Stages and benchmarks share this one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# When to store an intermediate tensor: once this many reads are needed to recompute it. A layer's output plus the residual
# stream feeds both the next norm and the next sum. With the default of 4 the compiler recomputes that sum from up to five
# tensors before it stores it: 4.75 passes over a tensor for each norm of d20. With 2 it takes 4 passes.
OPTIONS: dict[str, Any] = {"realize_reads_threshold": 2}


def compiled(model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Compile `model` for inputs of one shape. Each further shape triggers a new compilation."""
    return torch.compile(model, dynamic=False, options=OPTIONS)
