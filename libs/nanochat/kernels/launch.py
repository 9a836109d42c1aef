"""What every persistent Triton kernel is launched with: tensor descriptors for TMA, and one program per multiprocessor."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def descriptor(x: Tensor, block: list[int]) -> TensorDescriptor:
    """How TMA reads and writes blocks of x, whose last dimension is contiguous."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block)


def programs(x: Tensor) -> tuple[int]:
    """A launch's size: one program a multiprocessor; a few where Triton's interpreter runs on a CPU."""
    return (torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4,)
