"""How persistent Triton kernels are launched: with tensor descriptors for TMA, and one program per multiprocessor."""

from __future__ import annotations

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


def descriptor(x: Tensor, block: list[int]) -> TensorDescriptor:
    """The descriptor through which TMA moves blocks of x, shaped `block`. The last dimension of x must be contiguous."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block)


def programs(x: Tensor) -> tuple[int]:
    """The launch grid: one program per multiprocessor of the GPU, or 4 when Triton's interpreter runs on a CPU."""
    return (torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4,)
