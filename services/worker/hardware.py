"""The GPUs of this machine, as `nvidia-smi` lists them. That needs neither torch nor a Python binding."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
from collections.abc import Sequence


def devices(slot: int, slots: int, count: int | None = None) -> list[str]:
    """The GPUs of one of `slots` equal shares of this machine, as values for CUDA_VISIBLE_DEVICES. Empty without GPUs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    held = len(gpus(count))
    names = [v.strip() for v in visible.split(",")][:held] if visible is not None else [str(i) for i in range(held)]
    share = held // slots
    return names[slot * share : (slot + 1) * share]


def gpus(count: int | None = None) -> list[str]:
    """Names of the GPUs that a stage may use: the visible ones, or the first `count` of them. Empty if there is no driver."""
    if count == 0:
        return []
    try:
        names = [row[0] for row in nvidia_smi("name", timeout_s=60)]
    except subprocess.CalledProcessError:
        names = []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = names[: len([v for v in visible.split(",") if v.strip() not in ("", "-1")])]
    return names if count is None else names[:count]


def numbers(devices: Sequence[str], *, timeout_s: float) -> list[int]:
    """The numbers, as nvidia-smi counts, of GPUs that are named as in CUDA_VISIBLE_DEVICES: by number, or by UUID or its beginning.

    They are CUDA's own numbers where all GPUs of the machine are alike. Shares of a GPU (MIG) are left out. Raises OSError or
    SubprocessError.
    """
    if all(name.isdecimal() for name in devices):
        return [int(name) for name in devices]
    uuids = [(int(index), uuid) for index, uuid in nvidia_smi("index", "uuid", timeout_s=timeout_s)]
    return [index for index, uuid in uuids if any(name == str(index) or (name and uuid.startswith(name)) for name in devices)]


def nvidia_smi(*fields: str, timeout_s: float) -> list[list[str]]:
    """What the driver says of each GPU of the machine. Empty if there is no driver. Raises OSError or SubprocessError."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    command = [tool, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout_s)
    return [row for row in csv.reader(io.StringIO(done.stdout), skipinitialspace=True) if row]
