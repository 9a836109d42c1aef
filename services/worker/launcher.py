"""Where the processes of an attempt run: on this worker's machine, or on the machines of several workers at once.

The worker that claims a stage leads it. It calls other workers with a message, and each that comes starts torchrun beside it (see
`member`). Only the leader has a lease, judges the end and reports it; when any machine is lost, all ranks end and the stage is
tried again from its last checkpoint. All machines share the home folder.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from controlplane.claims import Claim, Fence
from nanochat.contract.launch import Rendezvous, stage_command
from services.worker.settings import Settings


class Launcher(Protocol):
    @property
    def machines(self) -> int:
        """How many machines run an attempt together."""

    def command(self, claim: Claim, spec: Path, ranks: int) -> list[str]:
        """The command that this worker runs for the attempt, with `ranks` processes on this machine."""


class OneMachine:
    machines = 1

    def command(self, claim: Claim, spec: Path, ranks: int) -> list[str]:
        return stage_command(claim.kind, spec, ranks)


@dataclass(frozen=True, slots=True)
class Invitation:
    """The message to another worker: which attempt to join, and where."""

    fence: Fence
    stage: str
    kind: str
    endpoint: str
    nodes: int

    def as_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, message: dict[str, Any]) -> Invitation:
        return cls(**{**message, "fence": Fence(**message["fence"])})

    def rendezvous(self, address: str, *, hosts: bool) -> Rendezvous:
        # No two attempts meet: the id names the attempt.
        name = f"{self.fence.run_id}-{self.fence.stage_id}-{self.fence.attempt_no}"
        return Rendezvous(name, self.endpoint, self.nodes, address, hosts)


@dataclass(frozen=True, slots=True)
class ManyMachines:
    """`call` sends an invitation to one worker of the queue, whichever is idle."""

    settings: Settings
    call: Callable[[Invitation], None]

    @property
    def machines(self) -> int:
        return self.settings.nodes

    def command(self, claim: Claim, spec: Path, ranks: int) -> list[str]:
        address = self.settings.own_address
        invitation = Invitation(claim.fence, claim.stage, claim.kind, f"{address}:{_free_port(address)}", self.settings.nodes)
        for _ in range(self.settings.nodes - 1):
            self.call(invitation)
        return stage_command(claim.kind, spec, ranks, invitation.rendezvous(address, hosts=True))


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
