"""This process's rank, its device, and the few collectives that stages need. A single rank needs no process group."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from nanochat import kernels

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, from malloc.h


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process of a stage: `rank` of `world_size`, its `device`, and the `dtype` in which it multiplies matrices."""

    rank: int
    world_size: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def row_multiple(self) -> int:
        """Rows of different lengths are padded to a multiple of this. Triton compiles a kernel again for other sizes: 2 s on an H200."""
        return 16 if self.device.type == "cuda" else 1

    @property
    def is_main(self) -> bool:
        """True on rank 0, which alone writes what the ranks have in common."""
        return self.rank == 0

    def autocast(self) -> torch.autocast:
        """The context in which a model runs: parameters stay float32, matrix products run in `dtype`."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def gather(self, *values: float) -> list[list[float]]:
        """Every rank's values, in rank order, by one small collective. All ranks pass equally many values.

        They travel as float64 (float32 on MPS, which has no float64).
        """
        if self.world_size == 1:
            return [list(values)]
        mine = torch.tensor(values, dtype=torch.float64 if self.device.type != "mps" else torch.float32, device=self.device)
        everyone = mine.new_empty(self.world_size * len(values))
        dist.all_gather_into_tensor(everyone, mine)
        return [row.tolist() for row in everyone.view(self.world_size, -1)]

    def sum(self, *values: float) -> list[float]:
        """Each value summed over all ranks, in float64."""
        if self.world_size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(v) for v in total.tolist()]

    def any(self, flag: bool) -> bool:
        """True on every rank if `flag` is true on at least one."""
        return self.sum(float(flag))[0] > 0

    def barrier(self) -> None:
        """Wait until every rank has made this call."""
        if self.world_size > 1:
            dist.barrier()


@contextlib.contextmanager
def ranks(device: str | None = None) -> Iterator[Ranks]:
    """Join the process group that torchrun described in the environment (nccl on CUDA, gloo elsewhere); leave it on exit.

    `device` is "cuda", "mps" or "cpu"; the default is the best one available. Without torchrun the group is this one rank.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    kind = device or autodetect()
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch_device = torch.device("cuda", torch.cuda.current_device())
        kernels.detect(torch_device)
    else:
        torch_device = torch.device(kind)
        share_cores()
        keep_memory()
    if world > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", device_id=torch_device if kind == "cuda" else None)
    try:
        yield Ranks(rank, world, torch_device, native_dtype(torch_device))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def share_cores() -> None:
    """Divide this machine's cores among its ranks: torchrun alone would give each rank a single core.

    A single rank respects OMP_NUM_THREADS: torchrun sets that variable only for several ranks, so here the user set it.
    """
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if local == 1 and "OMP_NUM_THREADS" in os.environ:
        return
    torch.set_num_threads(max(1, cores() // local))


def keep_memory() -> None:
    """Have glibc keep the memory of freed tensors of up to 32 MiB for the next ones, in place of the kernel.

    Otherwise every step takes fresh pages, which the kernel clears: `tiny` needs 14 % more CPU time to train, 25 % more to evaluate, and as
    much memory.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(M_MMAP_THRESHOLD, 32 << 20)
        set_option(M_TRIM_THRESHOLD, 1 << 30)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def native_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it: GPUs, and CPUs with AVX-512 BF16 or AMX (2 to 3 times faster there)."""
    return torch.bfloat16 if device.type == "cuda" or (device.type == "cpu" and _cpu_has_bf16()) else torch.float32


@functools.cache
def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return " avx512_bf16" in text or " amx_bf16" in text


def autodetect() -> str:
    """The best available device: cuda, else mps, else cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
