"""Memory, speed and price of GPUs from public sources, for plans and for the MFU that training reports. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Gpu:
    """A row of the table of known GPUs."""

    name: str
    memory_gib: float  # all of the GPU's memory, as its driver reports it
    peak_flops: float  # per second: dense bf16 products with fp32 accumulation
    mfu: float  # fraction of the peak that a d20-like run reaches, with FLOPs counted by `shape.flops_per_token`
    usd_per_hour: float | None  # on demand; None without a source


# The first row all of whose words occur in the device's name applies, so the more particular name goes first.
#
# Memory: the data sheet's size less what the driver keeps, which is the total that torch reports. A V100 that does not say which
# of its sizes it has is taken for the smaller one, an A100 for the larger one, which clouds rent.
# Peaks: NVIDIA's data sheets, without sparsity. That of the GB10 is an eighth of its FP4 peak with sparsity, as the RTX PRO's is.
# MFU:
#   H100      57.6 %, measured by us: d20 in bf16 on two GPUs, communication included (docs/lab/training-speed.md)
#   H200, GH200  assumed to be the H100's
#   A100      public report of nanochat's d20 speedrun on 8 GPUs: 20.8 % of an H100's peak, which is 66 % of its own
#   RTX 5090  public report of the same: 16.9 % of an H100's peak, which is 80 % of its own
#   RTX 4090  nanochat #157: the speedrun on one takes about 3 days, which is 80 % of its own
#   others    estimated from 48 % in public reports of the same on 8 x H100, without our kernels
# Prices: nanochat's own table (H100, A100, V100); H200: median of specialist clouds, May 2026.
GPUS: tuple[Gpu, ...] = (
    Gpu("GH200 144GB", 139.8, 989e12, 0.57, None),
    Gpu("GH200", 94.5, 989e12, 0.57, None),
    Gpu("H200", 139.8, 989e12, 0.57, 4.00),
    Gpu("H100 PCIe", 79.1, 756e12, 0.48, None),
    Gpu("H100 NVL", 93.1, 835e12, 0.48, None),
    Gpu("H100", 79.1, 989e12, 0.57, 3.00),
    Gpu("GB200", 183.0, 2500e12, 0.40, None),
    Gpu("B200", 178.3, 2250e12, 0.40, None),
    Gpu("GB10", 119.6, 125e12, 0.40, None),
    Gpu("A100 40GB", 39.4, 312e12, 0.66, 1.79),
    Gpu("A100", 79.1, 312e12, 0.66, 1.79),
    Gpu("L40S", 44.4, 362e12, 0.45, None),
    Gpu("RTX 5090", 31.4, 209.5e12, 0.80, None),
    Gpu("RTX 4090", 23.5, 165.2e12, 0.80, None),
    Gpu("RTX PRO 6000 Max-Q", 94.9, 438.9e12, 0.45, None),
    Gpu("RTX PRO 6000", 94.9, 503.8e12, 0.45, None),
    Gpu("V100 32GB", 31.7, 125e12, 0.30, 0.55),
    Gpu("V100", 15.8, 125e12, 0.30, 0.55),
)
# Words of other, smaller cards under a known name: a laptop's RTX 5090, an RTX 4090 D, a slice of an A100.
OTHERS = frozenset({"laptop", "mobile", "d", "mig"})
KEPT = 0.989  # what a driver leaves of a card's memory
CPU = "CPU"
# A process that trains on a CPU: 0.1 TFLOPS are assumed, what a few cores of a server reach. It serves to tell minutes from years.
CPU_TFLOPS, CPU_MFU = 0.25, 0.40
UNKNOWN_MFU = 0.40  # assumed for a GPU that is not in the table but whose peak is given


def find(device_name: str | None) -> Gpu | None:
    """The row of a GPU, by its driver's name ("NVIDIA H100 80GB HBM3") or its common name ("h100"); None if unknown.

    Its memory is less than the table's if the name says so ("A100-SXM-64GB").
    """
    words = _words(device_name or "")
    if words & OTHERS:
        return None
    gpu = next((gpu for gpu in GPUS if _words(gpu.name) <= words), None)
    sizes = [KEPT * int(word.removesuffix("gb")) for word in words if re.fullmatch(r"\d+gb", word)]
    return replace(gpu, memory_gib=sizes[0]) if gpu and sizes and sizes[0] < KEPT * gpu.memory_gib else gpu


def _words(name: str) -> set[str]:
    """Words of a name in lower case, a size always as "80gb": "A100-SXM4-40GB" and "a100 40 GB" both have a100 and 40gb."""
    name = re.sub(r"(?i)\b(\d+)\s*gi?b?\b", r"\1gb", name.casefold())
    return set(re.findall(r"[a-z0-9]+", re.sub(r"\brtx(?=\d)", "rtx ", name)))


@dataclass(frozen=True, slots=True)
class Hardware:
    """`world_size` processes with one GPU each. `gpu` is its name in the table. None means unknown."""

    world_size: int
    gpu: str | None = None
    memory_gib: float | None = None
    peak_tflops: float | None = None
    mfu: float | None = None
    usd_per_hour: float | None = None  # of one GPU

    @property
    def flops(self) -> float | None:
        """FLOPs per second that all processes together are expected to reach."""
        return 1e12 * self.peak_tflops * self.mfu * self.world_size if self.peak_tflops and self.mfu else None


def hardware(
    world_size: int,
    device_name: str | None = None,
    *,
    memory_gib: float | None = None,
    peak_tflops: float | None = None,
    usd_per_hour: float | None = None,
) -> Hardware:
    """The hardware of `world_size` GPUs as the table describes them. Values that are given override the table.

    The device `CPU` is a process without a GPU. The table has no price for it.
    """
    if (device_name or "").casefold() == CPU.casefold():
        return Hardware(world_size, CPU, memory_gib, peak_tflops or CPU_TFLOPS, CPU_MFU, usd_per_hour)
    card = find(device_name)
    if card is None:
        mfu = UNKNOWN_MFU if peak_tflops is not None else None
        return Hardware(world_size, None, memory_gib, peak_tflops, mfu, usd_per_hour)
    return Hardware(
        world_size,
        card.name,
        card.memory_gib if memory_gib is None else memory_gib,
        card.peak_flops / 1e12 if peak_tflops is None else peak_tflops,
        card.mfu,
        card.usd_per_hour if usd_per_hour is None else usd_per_hour,
    )
