"""Start a stage as `torchrun -m nanochat <kind> --spec stage.json`, or without torchrun when it is one process, so that it dies with its
starter. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

JOIN_S = 120  # for the other machines to come to the rendezvous
PR_SET_PDEATHSIG = 1

# Looked up before any fork, because the child must not take the loader's lock between fork and exec.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


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
    """Run the stage that the file `spec` describes, as `ranks` processes on this machine.

    A single process needs no torchrun, whose own start takes as long as that of a stage: 2 to 4 s on a CPU, and 300 MB.
    """
    stage = ("-m", "nanochat", kind, "--spec", str(spec))
    return torchrun(ranks, *stage, meet=meet) if ranks > 1 or meet else [sys.executable, *stage]


def launch(command: Sequence[str], env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, output appended to `log`. The kernel kills it when the calling thread ends.

    Call it from a thread that lives as long as the stage, as the main thread does. Raises OSError.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        if _PRCTL is not None:
            _PRCTL(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
            preexec_fn=die_with_parent,  # safe: the starter has no other thread yet
        )
