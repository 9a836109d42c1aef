"""The command that starts a stage: `torchrun -m nanochat <kind> --spec stage.json`. Imports no torch."""

from __future__ import annotations

import sys
from pathlib import Path


def torchrun(ranks: int, *program: str) -> list[str]:
    """Run `program` (a script or `-m module`, and its arguments) as `ranks` processes on this machine.

    torch.distributed.run is what the `torchrun` script calls. Started this way it uses this interpreter, wherever PATH points.
    """
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *program]


def stage_command(kind: str, spec: Path, ranks: int) -> list[str]:
    """Run the stage that the file `spec` describes, as `ranks` processes on this machine."""
    return torchrun(ranks, "-m", "nanochat", kind, "--spec", str(spec))
