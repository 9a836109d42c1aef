"""How Triton kernels are launched: descriptors for TMA, the grid of persistent kernels, and compiling many kernels at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from triton import AsyncCompileMode, FutureKernel
from triton.tools.tensor_descriptor import TensorDescriptor

_ahead: ContextVar[list[Any] | None] = ContextVar("kernels compiled ahead", default=None)


def descriptor(x: Tensor, block: list[int]) -> TensorDescriptor:
    """The descriptor through which TMA moves blocks of x, shaped `block`. The last dimension of x must be contiguous."""
    return TensorDescriptor(x, list(x.shape), list(x.stride()), block)


def programs(x: Tensor) -> tuple[int]:
    """The launch grid: one program per multiprocessor of the GPU, or 4 when Triton's interpreter runs on a CPU."""
    return (torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 4,)


def launched(kernel: Any, grid: tuple[int, ...]) -> Callable[..., Any]:
    """`kernel[grid]`. Within `compiled_ahead`, calling it only hands the kernel to the threads that compile."""
    ahead = _ahead.get()
    if ahead is None:
        return kernel[grid]
    return lambda *args, **options: ahead.append(kernel.warmup(*args, grid=grid, **options))


@contextmanager
def compiled_ahead(device: torch.device) -> Iterator[None]:
    """Kernels that `launched` starts within this context do not run. They are compiled, one on each core, before it ends.

    Compiling the 23 kernels of an engine one after another takes 14 s. Most of that is in LLVM and ptxas, for which other threads need
    not wait.
    """
    kernels: list[Any] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=torch.cuda.set_device, initargs=(device,)) as threads:
        with AsyncCompileMode(threads):
            token = _ahead.set(kernels)
            try:
                yield
            finally:
                _ahead.reset(token)
        distinct = {id(kernel): kernel for kernel in kernels}
        list(threads.map(_load, distinct.values()))


def _load(kernel: Any) -> None:
    (kernel.result() if isinstance(kernel, FutureKernel) else kernel).run  # noqa: B018  (builds the launcher, loads the code)
