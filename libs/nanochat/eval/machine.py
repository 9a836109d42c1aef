"""Describe the machine and the software versions with which figures were measured."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch


def describe() -> dict[str, str | int]:
    """Return what a reader needs to judge a speed: system, CPU, cores, memory, GPUs and versions."""
    found: dict[str, str | int] = {"system": platform.platform(terse=True), "cpu": _cpu(), "cores": os.cpu_count() or 1}
    if memory := _memory_gib():
        found["memory"] = f"{memory:.0f} GiB"
    if torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found["gpus"] = f"{len(properties)} x {properties[0].name}, {properties[0].total_memory / 2**30:.0f} GiB each"
        found["cuda"] = torch.version.cuda or "unknown"
    found |= {"python": platform.python_version(), "torch": torch.__version__, "nanochat": _version()}
    return found


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None


def _version() -> str:
    try:
        return metadata.version("nanochat-platform")
    except metadata.PackageNotFoundError:
        return "unknown"
