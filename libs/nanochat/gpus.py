"""What a GPU can do and costs, from public sources, for plans and for the MFU shown while training. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """`peak_flops`: dense bf16 products a second, fp32 accumulation. `mfu`: the share of it a d20-like run reaches, with
    attention counted in full as `shape.flops_per_token` does. `usd_per_hour`: on demand, null when we have no source.
    """

    name: str
    peak_flops: float
    mfu: float
    usd_per_hour: float | None


# Peaks: NVIDIA's data sheets (without sparsity). MFU: public reports of the d20 speedrun, where there is one: 8 x H100, 48 %;
# 8 x A100, 20.8 % of an H100's peak, so 66 % of its own; RTX 5090, 16.9 % of an H100's, so 80 % of its own. The others are
# taken as an H100. Prices: the speedrun's own table (H100, A100, V100); H200: median of specialist clouds, May 2026.
# The first name that occurs in the device's name wins.
GPUS: tuple[Gpu, ...] = (
    Gpu("H200", 989e12, 0.48, 4.00),
    Gpu("H100 PCIe", 756e12, 0.48, None),
    Gpu("H100", 989e12, 0.48, 3.00),
    Gpu("B200", 2250e12, 0.40, None),
    Gpu("A100", 312e12, 0.66, 1.79),
    Gpu("L40S", 362e12, 0.45, None),
    Gpu("RTX 5090", 209.5e12, 0.80, None),
    Gpu("RTX 4090", 165.2e12, 0.60, None),
    Gpu("V100", 125e12, 0.30, 0.55),
)


def find(device_name: str | None) -> Gpu | None:
    """The row for a device as its driver names it ("NVIDIA H100 80GB HBM3") or as people do ("h100"); None when unknown."""
    wanted = (device_name or "").casefold()
    return next((gpu for gpu in GPUS if gpu.name.casefold() in wanted), None)
