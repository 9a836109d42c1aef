"""What a worker tells of its machine with its heartbeats: the GPUs, as `nvidia-smi` measures them, and the disks."""

from __future__ import annotations

import logging
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from services.worker import hardware

log = logging.getLogger(__name__)

EVERY_S = 10.0  # a query of eight GPUs takes about a tenth of a second
PATIENCE_S = 3.0  # heartbeats wait for it: a driver that hangs must not make the worker look lost
GIB = 2**30
# The name in nvidia-smi, ours, and the factor of the unit.
GAUGES = (
    ("memory.used", "memory_used_gib", 1 / 1024),
    ("memory.total", "memory_total_gib", 1 / 1024),
    ("power.draw", "power_w", 1.0),
    ("power.limit", "power_limit_w", 1.0),
    ("temperature.gpu", "temperature_c", 1.0),
    ("utilization.gpu", "activity_pct", 1.0),
)


class Machine:
    """Measures at most once in EVERY_S; in between it repeats what it last measured."""

    def __init__(self, home: Path, cache: Path, *, gpus: bool):
        self._folders, self._gpus = {"home": home, "cache": cache}, gpus
        self._measured_at = float("-inf")
        self.state: dict[str, Any] = {"gpus": [], "disks": []}

    def measure(self) -> None:
        if time.monotonic() - self._measured_at < EVERY_S:
            return
        self._measured_at = time.monotonic()
        self.state = {"gpus": gpus() if self._gpus else [], "disks": [_disk(what, at) for what, at in self._folders.items()]}


def gpus() -> list[dict[str, Any]]:
    """Every GPU of the machine by its index. A gauge that the GPU does not have is None. Empty where there is no driver."""
    try:
        rows = hardware.nvidia_smi("index", "name", *(name for name, _, _ in GAUGES), timeout_s=PATIENCE_S)
    except (OSError, subprocess.SubprocessError) as err:
        log.warning("nvidia-smi does not tell how the GPUs are: %s", err)
        return []
    return [_gpu(row) for row in rows if len(row) == 2 + len(GAUGES) and row[0].isdecimal()]


def disk(folder: Path) -> tuple[int, int]:
    """Size and free space, in bytes, of the disk on which a folder is, or will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    return usage.total, usage.free


def _gpu(row: list[str]) -> dict[str, Any]:
    values = {key: _scaled(text, factor) for (_, key, factor), text in zip(GAUGES, row[2:], strict=True)}
    return {"index": int(row[0]), "name": row[1], **values}


def _scaled(text: str, factor: float) -> float | None:
    try:
        return round(float(text) * factor, 2)
    except ValueError:  # "[N/A]"
        return None


def _disk(what: str, folder: Path) -> dict[str, Any]:
    total, free = disk(folder)
    return {"what": what, "path": str(folder.absolute()), "free_gib": round(free / GIB, 2), "total_gib": round(total / GIB, 2)}
