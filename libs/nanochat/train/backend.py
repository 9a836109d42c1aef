"""Check that attention runs on the GPU's fastest back end, or choose the one for rows of many different lengths.

torch falls back to a slower one without a warning, which can halve the speed of attention.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

CUDNN_FIRST = ((9, 0), (10, 0))  # torch prefers cuDNN to flash on these: 525 against 295 TFLOP/s forward on an H100
CUDNN_AFTER = 91500  # torch uses cuDNN for attention only if its version at run time is newer than this (9.15)
FLASH_FROM = (8, 0)  # older GPUs have no flash kernel


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything from which torch chooses the back end.

    `capability` is the GPU's compute capability. `cudnn_version` is in torch's notation (91900 for 9.19), None without cuDNN.
    """

    capability: tuple[int, int]
    cudnn_version: int | None
    cudnn_enabled: bool = True
    cudnn_deprioritized: bool = False  # TORCH_CUDNN_SDPA_DEPRIORITIZED
    flash_enabled: bool = True
    deterministic: bool = False  # torch then skips cuDNN, whose backward pass is not deterministic


def complaint(facts: Facts) -> str | None:
    """Say why attention is slower than it could be on this GPU, and what to do. None when torch uses its fastest back end."""
    flash = None if facts.flash_enabled else "flash attention is turned off: torch.backends.cuda.enable_flash_sdp(True)"
    if facts.capability < FLASH_FROM:
        return None
    if facts.capability not in CUDNN_FIRST or facts.deterministic:
        return flash and f"attention does not run on flash, the fastest back end on this GPU; {flash}"
    if not facts.cudnn_enabled:
        why = "cuDNN attention is turned off: torch.backends.cuda.enable_cudnn_sdp(True)"
    elif facts.cudnn_deprioritized:
        why = "unset TORCH_CUDNN_SDPA_DEPRIORITIZED"
    elif facts.cudnn_version is None or facts.cudnn_version <= CUDNN_AFTER:
        why = (
            f"cuDNN {_dotted(facts.cudnn_version)} was loaded, but a version above {_dotted(CUDNN_AFTER)} is needed: install a "
            "newer torch, and check LD_LIBRARY_PATH for an older library"
        )
    else:
        return None
    instead = "flash" if flash is None else f"a slow back end ({flash})"
    return f"attention runs on {instead}, not on cuDNN, which is up to twice as fast on this GPU; {why}"


def facts(device: torch.device) -> Facts:
    """Read the current `Facts` of a CUDA device."""
    cudnn: Any = torch.backends.cudnn
    kernels: Any = torch.backends.cuda
    return Facts(
        capability=torch.cuda.get_device_capability(device),
        cudnn_version=cudnn.version(),
        cudnn_enabled=cudnn.enabled and kernels.cudnn_sdp_enabled(),
        cudnn_deprioritized=os.environ.get("TORCH_CUDNN_SDPA_DEPRIORITIZED", "0") not in ("", "0"),
        flash_enabled=kernels.flash_sdp_enabled(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def avoid_plans() -> None:
    """Turn cuDNN attention off in this process: it plans for each new shape.

    That takes 0.19 s on an H200, in which d20 trains on 20,000 tokens. Flash attention needs no plans.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def _dotted(version: int | None) -> str:
    return "none" if version is None else f"{version // 10_000}.{version // 100 % 100}"
