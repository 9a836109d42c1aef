"""Programmatic dependent launch: a kernel starts while the one before it still runs, and waits only before it reads its results.

A step of decoding is about a hundred kernels of a few microseconds. Started early, a kernel sets itself up and loads its weights
while the previous one finishes. Every kernel of such a chain calls `wait` in all of its programs. When one has passed, everything
before the previous kernel is complete too. Needs compute capability 9.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@functools.cache
def supported(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9


@triton.jit
def wait(CHAINED: tl.constexpr):
    """Wait until the previous kernel's results are complete, then let the next kernel start."""
    if CHAINED:
        gdc_wait()
        gdc_launch_dependents()


def chained(device: torch.device) -> dict[str, bool]:
    """The options of a kernel that calls `wait`: its constant CHAINED, and the launch itself."""
    return {"CHAINED": True, "launch_pdl": True} if supported(device) else {"CHAINED": False}
