"""The libraries that we compare with. Each runs in a process of its own and is installed into a folder of its own.

The folders are needed because one peer has our import name. They are kept between runs and ignored by git.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, JobError, run_job

FOLDER = ROOT / ".peers"

# Peers that are packages of the development environment need no folder.
REQUIREMENTS = {
    "rustbpe 0.1.0": "rustbpe==0.1.0",
    "gigatoken": "gigatoken==0.10.0",
    "bpeasy": "bpeasy==0.1.6",
    "fast-bpe-rs": "fast-bpe-rs==0.6.1",
    "fastokens": "fastokens==0.3.5",
}


def folder(name: str) -> Path | None:
    """Where the peer is installed, or None for our own environment. Raises JobError when it cannot be installed."""
    requirement = REQUIREMENTS.get(name)
    if requirement is None:
        return None
    target = FOLDER / requirement.replace("==", "-")
    if not target.exists():
        partial = FOLDER / f".{target.name}"
        uv = shutil.which("uv")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        installer += ["install", "-q", "--no-deps", "--target", str(partial), requirement]
        done = subprocess.run(installer, capture_output=True, text=True, check=False)
        if done.returncode:
            raise JobError(f"{requirement} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        partial.rename(target)
    return target


def run(name: str, job: dict[str, Any], seconds: float = 900) -> dict[str, Any]:
    """What `benchmarks.tokenizer.job` measured in a fresh process, or {"reason": why it could not}."""
    try:
        target = folder(name)
        env = {
            "RAYON_NUM_THREADS": str(job["threads"]),
            "TOKENIZERS_PARALLELISM": "true" if job["threads"] > 1 else "false",
            "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)] if target else [str(ROOT)]),
        }
        return run_job("benchmarks.tokenizer.job", {"library": name, **job}, env=env, seconds=seconds)
    except JobError as err:
        return {"reason": str(err)[:160]}
