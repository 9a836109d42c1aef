"""Runs model-written Python: a separate process, no network, no file outside its own temporary folder, hard limits.

On Linux the kernel enforces the limits: seccomp and Landlock are in force before the program's first line. Python's audit
hooks (`sandbox_guard.py`) and resource limits and a wall-clock limit apply on every Unix.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

GUARD = Path(__file__).with_name("sandbox_guard.py")
OUTPUT_CAP = 64 * 1024  # characters of stdout and of stderr that are returned
FILE_CAP = 8 * 1024 * 1024  # bytes of any file the program writes, its stdout included


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended. `success`: it reached its last line without an exception or an exit call."""

    success: bool
    stdout: str
    stderr: str
    timeout: bool = False
    memory: bool = False
    walls: tuple[str, ...] = ()  # the kernel mechanisms in force: "seccomp", "landlock"


def run(program: str, *, timeout_s: float = 5.0, memory_mib: int = 256) -> Result:
    """Run Python source in a fresh interpreter (standard library only) and wait for it, at most `timeout_s` seconds.

    The program sees an empty folder as its current directory, an empty stdin and none of this process's environment.
    When this returns, every process of its process group has ended.
    """
    with contextlib.ExitStack() as stack:
        cwd = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nanochat-sandbox-", ignore_cleanup_errors=True)))
        stdout, stderr = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
        outcome_r, outcome_w = os.pipe()
        stack.callback(os.close, outcome_r)
        try:
            process = _start(program, cwd, stdout, stderr, outcome_w, timeout_s, memory_mib)
        finally:
            os.close(outcome_w)
        timed_out = _wait(process, timeout_s)
        os.set_blocking(outcome_r, False)
        outcome = _read_outcome(outcome_r)
        return Result(
            success=not timed_out and outcome.get("end") == "ok",
            stdout=_head(stdout),
            stderr=_head(stderr),
            timeout=timed_out or process.returncode == -signal.SIGXCPU,
            memory=outcome.get("end") == "memory",
            walls=tuple(outcome.get("walls", ())),
        )


def _start(
    program: str, cwd: Path, stdout: IO[bytes], stderr: IO[bytes], outcome: int, timeout_s: float, memory_mib: int
) -> subprocess.Popen[bytes]:
    limits = {"cpu_s": int(timeout_s) + 2, "memory": memory_mib * 2**20, "file": FILE_CAP, "outcome": outcome, "cwd": str(cwd)}
    # A file rather than the command line: programs can be long, and `ps` shows command lines to every user.
    source = tempfile.TemporaryFile()  # noqa: SIM115 - handed to the child, closed below
    with source:
        source.write(program.encode("utf-8", "surrogatepass"))
        source.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(GUARD), json.dumps(limits)],
            cwd=cwd,
            env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TMPDIR": str(cwd), "LANG": "C.UTF-8"},
            stdin=source,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(outcome,),
            start_new_session=True,
        )


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the time ran out. The whole process group is killed in any case."""
    try:
        process.wait(timeout_s)
        return False
    except subprocess.TimeoutExpired:
        return True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _read_outcome(fd: int) -> dict[str, Any]:
    """The guard's report: {"end": "ok"|"error"|"memory", "walls": [...]}; empty when the program died before it was written."""
    with contextlib.suppress(BlockingIOError, ValueError):
        value = json.loads(os.read(fd, 4096))
        if isinstance(value, dict):
            return value
    return {}


def _head(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(OUTPUT_CAP).decode("utf-8", "replace")
