"""The command that starts a stage: `torchrun -m nanochat <kind> --spec stage.json`. Imports no torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

JOIN_S = 120  # for the other machines to come to the rendezvous


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the torchruns of several machines meet. The host's torchrun serves `endpoint`; `address` is this machine's own."""

    id: str
    endpoint: str
    nodes: int
    address: str
    hosts: bool

    @property
    def options(self) -> list[str]:
        return [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-id={self.id}",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-conf=is_host={str(self.hosts).lower()},join_timeout={JOIN_S},last_call_timeout=1",
            f"--local-addr={self.address}",
        ]


def torchrun(ranks: int, *program: str, meet: Rendezvous | None = None) -> list[str]:
    """Run `program` (a script or `-m module`, and its arguments) as `ranks` processes on this machine.

    With `meet`, they are part of one process group with the ranks of other machines. torch.distributed.run is what the `torchrun`
    script calls. Started this way it uses this interpreter, wherever PATH points.
    """
    where = meet.options if meet else ["--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *where, f"--nproc-per-node={ranks}", *program]


def stage_command(kind: str, spec: Path, ranks: int, meet: Rendezvous | None = None) -> list[str]:
    """Run the stage that the file `spec` describes, as `ranks` processes on this machine."""
    return torchrun(ranks, "-m", "nanochat", kind, "--spec", str(spec), meet=meet)
