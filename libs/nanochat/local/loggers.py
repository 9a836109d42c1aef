"""The process that copies a local run to trackers while it goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

LOG = "loggers.log"
PATIENCE_S = 60.0  # for what is still to be sent when the run has ended


@contextlib.contextmanager
def copied_to(names: Sequence[str], out: Path) -> Iterator[None]:
    """Copy the run in `out` to these trackers while the block runs. Nothing that they do raises here."""
    if not names:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "nanochat.loggers", str(out), "--to", *names, "--follow"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the stages; this ends after them
        )
    try:
        yield
    finally:
        _end(process, out / LOG)


def _end(process: subprocess.Popen[bytes], log: Path) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code:
        sys.stdout.write(f"the copy for the trackers is not complete, {log} says why; the run itself has all figures\n")
