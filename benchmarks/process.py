"""A measurement in a process of its own, and what such a process can tell about itself. Imports only the standard library,
because a peer of the tokenizer shadows our packages in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class JobError(Exception):
    """The process failed or ran out of time. `str()` is one line; `stderr` is everything that it wrote."""

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


@contextlib.contextmanager
def attempted(part: str, failed: list[str]) -> Iterator[None]:
    """Print an error of this part of a benchmark and add the part to `failed`, so that what was measured before is kept."""
    try:
        yield
    except Exception as err:
        if isinstance(err, JobError):
            print(err.stderr[-3000:], flush=True)
        traceback.print_exc()
        failed.append(part)


def run_job(
    module: str, job: Mapping[str, Any], *, env: Mapping[str, str] | None = None, ranks: int = 1, seconds: float | None = None
) -> dict[str, Any]:
    """Run `python -m module <job as JSON>` (under torchrun when there are several ranks) and return the JSON on the last line
    that it prints. Raises JobError, also after `seconds`."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", module, json.dumps(job)]
    # PASSIVE, as a training stage sets it: OpenMP's threads must not spin while they wait for a busy core.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **(env or {})}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired as err:
        raise JobError(f"not done after {seconds:.0f} s") from err
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise JobError(said[-1], done.stderr)
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def job_of_argv() -> dict[str, Any]:
    """The job that `run_job` gave to this process."""
    job: dict[str, Any] = json.loads(sys.argv[1])
    return job


def peak_rss_mb() -> float:
    """Peak memory of this process image. getrusage would include the parent from which it was forked."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def cpu_seconds() -> float:
    """CPU time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
