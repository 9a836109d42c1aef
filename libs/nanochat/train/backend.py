"""Whether attention runs on the fast back end of the GPU at hand: torch falls back in silence, at up to half the speed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

CUDNN_FIRST = ((9, 0), (10, 0))  # where torch itself puts cuDNN before flash: 525 against 295 TFLOP/s forward on an H100
CUDNN_AFTER = 91500  # and only with a cuDNN newer than 9.15 at run time
FLASH_FROM = (8, 0)  # older cards have no flash kernel to miss


@dataclass(frozen=True, slots=True)
class Facts:
    """What torch decides by. `cudnn_version` as torch gives it, 91900 for 9.19; None without cuDNN."""

    capability: tuple[int, int]
    cudnn_version: int | None
    cudnn_enabled: bool = True
    cudnn_deprioritized: bool = False  # TORCH_CUDNN_SDPA_DEPRIORITIZED
    flash_enabled: bool = True
    deterministic: bool = False  # cuDNN's backward is not, and torch then passes it over


def complaint(facts: Facts) -> str | None:
    """What is wrong and what to do, or None when attention is as fast as torch makes it on this card."""
    flash = None if facts.flash_enabled else "flash attention is turned off: torch.backends.cuda.enable_flash_sdp(True)"
    if facts.capability < FLASH_FROM:
        return None
    if facts.capability not in CUDNN_FIRST or facts.deterministic:
        return flash and f"attention does not run on flash, the fast back end here; {flash}"
    if not facts.cudnn_enabled:
        why = "it is turned off: torch.backends.cuda.enable_cudnn_sdp(True)"
    elif facts.cudnn_deprioritized:
        why = "unset TORCH_CUDNN_SDPA_DEPRIORITIZED"
    elif facts.cudnn_version is None or facts.cudnn_version <= CUDNN_AFTER:
        why = (
            f"cuDNN {_dotted(facts.cudnn_version)} was loaded and more than {_dotted(CUDNN_AFTER)} is needed: install a newer "
            "torch, and look for an older library in LD_LIBRARY_PATH"
        )
    else:
        return None
    instead = "flash" if flash is None else f"a slow back end ({flash})"
    return f"attention runs on {instead}, not on cuDNN, which is up to twice as fast on this GPU; {why}"


def facts(device: torch.device) -> Facts:
    """Of a CUDA device, now."""
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


def _dotted(version: int | None) -> str:
    return "none" if version is None else f"{version // 10_000}.{version // 100 % 100}"
