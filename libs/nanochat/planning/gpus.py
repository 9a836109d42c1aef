"""What a GPU holds, can do and costs, from public sources, for plans and for what training shows. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory_gib`: all of the card, as its driver counts it. `peak_flops`: dense bf16 products a second, fp32 accumulation.
    `mfu`: the share of it a d20-like run reaches, with attention counted in full as `shape.flops_per_token` does.
    `usd_per_hour`: on demand, null when we have no source.
    """

    name: str
    memory_gib: float
    peak_flops: float
    mfu: float
    usd_per_hour: float | None


# Memory: the data sheets' sizes less what the driver keeps, as torch reports a card's total; a name sold in two sizes without
# saying which in its name has the smaller. Peaks: NVIDIA's data sheets (without sparsity). MFU: H100, ours, d20 in bf16, two
# cards with their communication, 57.6 % (docs/lab/training-speed.md), for which an H200 is taken as well; else public reports of
# the d20 speedrun: 8 x A100, 20.8 % of an H100's peak, so 66 % of its own; RTX 5090, 16.9 % of an H100's, so 80 % of its own. The
# others are reckoned from the reports' 48 % on 8 x H100, without our kernels. Prices: the speedrun's own table (H100, A100,
# V100); H200: median of specialist clouds, May 2026. The first name that occurs in the device's name wins.
GPUS: tuple[Gpu, ...] = (
    Gpu("H200", 139.8, 989e12, 0.57, 4.00),
    Gpu("H100 PCIe", 79.1, 756e12, 0.48, None),
    Gpu("H100", 79.1, 989e12, 0.57, 3.00),
    Gpu("B200", 178.3, 2250e12, 0.40, None),
    Gpu("A100-SXM4-40GB", 39.4, 312e12, 0.66, 1.79),
    Gpu("A100-PCIE-40GB", 39.4, 312e12, 0.66, 1.79),
    Gpu("A100", 79.1, 312e12, 0.66, 1.79),
    Gpu("L40S", 44.4, 362e12, 0.45, None),
    Gpu("RTX 5090", 31.4, 209.5e12, 0.80, None),
    Gpu("RTX 4090", 23.5, 165.2e12, 0.60, None),
    Gpu("V100-SXM2-32GB", 31.7, 125e12, 0.30, 0.55),
    Gpu("V100", 15.8, 125e12, 0.30, 0.55),
)
UNKNOWN_MFU = 0.40  # taken for a card that is not in the table but whose peak somebody gave


def find(device_name: str | None) -> Gpu | None:
    """The row for a device as its driver names it ("NVIDIA H100 80GB HBM3") or as people do ("h100"); None when unknown."""
    wanted = (device_name or "").casefold()
    return next((gpu for gpu in GPUS if gpu.name.casefold() in wanted), None)


@dataclass(frozen=True, slots=True)
class Hardware:
    """`world_size` processes with a GPU each, as far as it is known. `gpu` is a name of the table."""

    world_size: int
    gpu: str | None = None
    memory_gib: float | None = None
    peak_tflops: float | None = None
    mfu: float | None = None
    usd_per_hour: float | None = None  # of one GPU

    @property
    def flops(self) -> float | None:
        """What all of them together are reckoned to do in a second."""
        return 1e12 * self.peak_tflops * self.mfu * self.world_size if self.peak_tflops and self.mfu else None


def hardware(
    world_size: int,
    device_name: str | None = None,
    *,
    memory_gib: float | None = None,
    peak_tflops: float | None = None,
    usd_per_hour: float | None = None,
) -> Hardware:
    """`world_size` cards as the table has them; what is given goes before it."""
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
