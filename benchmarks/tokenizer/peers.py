"""The libraries beside ours. Each runs in a process of its own, from a folder of its own.

The folders are needed because one peer has our import name; they are kept between runs and ignored by git.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
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
    """Where the peer is installed, or None for our own environment. Raises RuntimeError when it cannot be had."""
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
            raise RuntimeError(f"{requirement} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
        partial.rename(target)
    return target


def run(name: str, job: dict[str, Any], seconds: float = 900) -> dict[str, Any]:
    """The result of a job in a fresh process, or {"reason": ...}."""
    try:
        target = folder(name)
    except RuntimeError as error:
        return {"reason": str(error)}
    environment = os.environ | {
        "RAYON_NUM_THREADS": str(job["threads"]),
        "TOKENIZERS_PARALLELISM": "true" if job["threads"] > 1 else "false",
        "PYTHONPATH": os.pathsep.join([str(target), str(ROOT)] if target else [str(ROOT)]),
    }
    command = [sys.executable, "-m", "benchmarks.tokenizer.job", name, json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"reason": f"not done after {seconds:.0f} s"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"reason": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:160]}
    return json.loads(lines[-1])
