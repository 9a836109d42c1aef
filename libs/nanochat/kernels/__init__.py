"""Fused Triton kernels for training on CUDA. Each must agree with a plain function of `model/`.

The plain functions call `usable` to choose between the two; no other part of the project knows that kernels exist.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

if torch.cuda.is_available():  # only CUDA needs Triton, which is slow to import
    from nanochat.kernels import cross_entropy as cross_entropy
    from nanochat.kernels import mlp as mlp
    from nanochat.kernels import rotary as rotary

_enabled = True
_fused = False


def detect(device: torch.device) -> None:
    """Enable the kernels if `device` is a Hopper GPU: they are sized for its shared memory and were tested on no other.

    Call it once, as soon as the process has its device.
    """
    global _fused
    _fused = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] == 9


def found() -> bool:
    """Whether `detect` enabled the kernels for this process's GPU."""
    return _fused


def usable(x: Tensor) -> bool:
    """Whether the training step may use a fused kernel on `x`: bf16, on a GPU that `detect` accepted, with gradients enabled.

    Without gradients (evaluation, sampling) shapes vary between calls and rows are few; cuBLAS and SDPA are faster there.
    """
    return _fused and training() and x.is_cuda and x.dtype is torch.bfloat16


def training() -> bool:
    """Whether gradients are enabled and `plain()` is not active. If so, code that saves less memory for backward pays off."""
    return _enabled and torch.is_grad_enabled()


@contextlib.contextmanager
def plain() -> Iterator[None]:
    """Inside this context every model runs its plain functions: the reference of tests, the baseline of benchmarks."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before
