"""Checks of the NVIDIA driver, of what torch makes of it, and of NCCL between the GPUs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nanochat.contract.launch import torchrun
from services.standalone.doctor.finding import Finding, bad, fine, odd

TORCH = """
import json, torch
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count()}))
"""
# One all-reduce over all GPUs, as the first step of training makes it.
ALL_REDUCE = """
import os, torch, torch.distributed as dist
torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
dist.init_process_group("nccl")
ones = torch.ones(1 << 20, device="cuda")
dist.all_reduce(ones)
assert ones[0].item() == dist.get_world_size()
dist.destroy_process_group()
"""
NCCL_TIMEOUT_S = 120
REINSTALL = (
    "install torch for CUDA anew (make env does), with a CUDA version that the driver supports (first line of nvidia-smi)"
)


def gpus() -> list[str] | None:
    """Names of the GPUs of this machine: none, or None if there are some but the driver does not answer."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None if list(Path("/dev").glob("nvidia[0-9]*")) else []
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.splitlines() if done.returncode == 0 else None


def driver(names: list[str] | None) -> Iterator[Finding]:
    if names is None:
        yield bad(
            "driver",
            "there is an NVIDIA GPU or driver, but nvidia-smi does not answer",
            "reinstall the driver or restart the machine; in a container: the NVIDIA Container Toolkit and --gpus all",
        )
    elif not names:
        yield fine("driver", "no NVIDIA GPU: training and chat use the CPU, which is enough for the recipe tiny")
    else:
        yield fine("driver", f"{len(names)} × {names[0]}")
        if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
            yield odd("driver", "CUDA_VISIBLE_DEVICES hides all GPUs", "unset CUDA_VISIBLE_DEVICES")


def torch(names: list[str] | None) -> Iterator[Finding]:
    """In a process of its own, because importing torch takes seconds and may crash on a broken installation."""
    done = _python("-c", TORCH)
    if done is None or done.returncode:
        why = "it hangs" if done is None else (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        if "No module named 'torch'" not in why:  # the check of packages reports that
            yield bad("torch", f"torch cannot be imported: {why}", "make env; do not mix wheels of several indexes")
        return
    found = json.loads(done.stdout)
    text = f"torch {found['torch']}, CUDA {found['cuda']}" if found["cuda"] else f"torch {found['torch']} for CPUs"
    if names and not found["cuda"]:
        yield bad("torch", f"{text}, but this machine has GPUs", REINSTALL)
    elif names and not found["gpus"]:
        yield bad("torch", f"{text} sees no GPU: the driver may be older than that CUDA", REINSTALL)
    else:
        yield fine("torch", text)
    if found["gpus"] > 1:
        yield from _nccl(found["gpus"])


def _nccl(world: int) -> Iterator[Finding]:
    done = _python(*torchrun(world, "--no-python", sys.executable, "-c", ALL_REDUCE)[1:])
    if done is None or done.returncode:
        why = "does not end" if done is None else "fails"
        yield bad(
            "nccl",
            f"an all-reduce over {world} GPUs {why}",
            "try it with NCCL_DEBUG=INFO; with NCCL_P2P_DISABLE=1 if it works then, ACS or an IOMMU blocks PCIe between the GPUs; "
            "enlarge /dev/shm",
        )
    else:
        yield fine("nccl", f"an all-reduce over {world} GPUs works")


def _python(*arguments: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=NCCL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return None
