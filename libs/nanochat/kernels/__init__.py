"""Fused kernels for training on CUDA, each beside the plain function that it must agree with.

The plain functions in `model/` decide by `usable` whether to call a kernel; nothing else in the project knows of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

if torch.cuda.is_available():  # Triton is needed nowhere else, and loading it takes a while
    from nanochat.kernels import cross_entropy as cross_entropy
    from nanochat.kernels import mlp as mlp
    from nanochat.kernels import rotary as rotary

_enabled = True
_fused = False


def detect(device: torch.device) -> None:
    """Call once when a process has its GPU: the kernels are sized for Hopper's shared memory and were run on no other."""
    global _fused
    _fused = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def found() -> bool:
    """Whether `detect` approved of this process's GPU."""
    return _fused


def usable(x: Tensor) -> bool:
    """Whether a training step on `x` may take the fused path: bf16 on a GPU that `detect` approved of, with gradients.

    Without gradients shapes vary from call to call and rows are few: cuBLAS and SDPA are the better choice there.
    """
    return _fused and training() and x.is_cuda and x.dtype is torch.bfloat16


def training() -> bool:
    """Whether gradients are wanted and nothing is switched off: where remembering less for them is worth its own code."""
    return _enabled and torch.is_grad_enabled()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Within this context every model runs its plain functions: for tests of equality and as the baseline of benchmarks."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
