"""Speed, memory and cost of a running training stage, and how often to report them."""

from __future__ import annotations

import resource
import sys
import time

import torch

from nanochat.distributed import Ranks
from nanochat.planning import gpus

QUIET_S = 0.2  # seconds between reports: at most five per second
WARMUP_STEPS = 10  # do not count for the sustained speed: they include compilation and the first allocations


class Meter:
    """Measures this attempt only: after a resume, it starts from zero."""

    def __init__(self, ranks: Ranks, flops_per_token: int):
        self._ranks, self._flops_per_token = ranks, flops_per_token
        cuda = ranks.device.type == "cuda"
        self.device = torch.cuda.get_device_name(ranks.device) if cuda else ranks.device.type
        gpu = gpus.find(self.device) if cuda else None
        self._peak = gpu.peak_flops * ranks.world_size if gpu else None
        self._usd_per_hour = gpu.usd_per_hour * ranks.world_size if gpu and gpu.usd_per_hour is not None else None
        self._steps: list[tuple[int, float]] = []  # (tokens, seconds) of the warm-up steps
        self._tokens = self._seconds = 0.0
        self._recent = 0.0
        self._spoke = 0.0

    def step(self, tokens: int, seconds: float) -> None:
        if len(self._steps) < WARMUP_STEPS:
            self._steps.append((tokens, seconds))
        else:
            self._tokens += tokens
            self._seconds += seconds
        self._recent = seconds if not self._recent else 0.9 * self._recent + 0.1 * seconds

    def sustained(self) -> float | None:
        """Tokens per second without the warm-up steps, or with them if there were no others. None before the first step."""
        if self._seconds:
            return self._tokens / self._seconds
        seconds = sum(s for _, s in self._steps)
        return sum(t for t, _ in self._steps) / seconds if seconds else None

    def mfu(self, tokens_per_s: float | None) -> float | None:
        """Model FLOPs utilisation: percent of the peak bf16 speed of all GPUs. None on other devices and unknown GPUs."""
        return 100 * self._flops_per_token * tokens_per_s / self._peak if self._peak and tokens_per_s else None

    def usd(self, train_seconds: float) -> float | None:
        """The price of all GPUs for this time, in US dollars; None when the price is not known."""
        return self._usd_per_hour * train_seconds / 3600 if self._usd_per_hour is not None else None

    def eta_s(self, steps_left: int) -> float | None:
        """Seconds that the steps left will take; None before a step has been measured."""
        if steps_left == 0:
            return 0.0
        return round(self._recent * steps_left, 1) if self._recent else None

    def mem_gib(self) -> float:
        """Peak memory so far, in GiB: of the GPU on CUDA, else of this process."""
        if self._ranks.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._ranks.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30

    def report_due(self) -> bool:
        """Whether `QUIET_S` seconds have passed since this last returned true."""
        now = time.monotonic()
        if now - self._spoke < QUIET_S:
            return False
        self._spoke = now
        return True
