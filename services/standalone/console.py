"""The process in the user's terminal. The supervisor is its child.

The supervisor has a session of its own, so Ctrl-C reaches only us: once for an orderly stop, twice for a quick one. When
the supervisor is killed, we end the processes that it leaves behind. When we are killed, it stops everything in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from nanochat.contract.contract import write_json
from services.standalone import tree
from services.standalone.child import StartError, held_by, lock, note_holder, spawn
from services.standalone.roster import home_folder, roster
from services.standalone.stack import Stack

STOP_S = 120.0


@dataclass(frozen=True)
class Running:
    """A running stack: the contents of `stack.json`, and the supervisor."""

    api_url: str
    inference_url: str
    ui_url: str
    key_file: Path
    supervisor: subprocess.Popen[bytes]

    @property
    def key(self) -> str:
        return self.key_file.read_text(encoding="utf-8").strip()

    def addresses(self) -> str:
        """Where the platform is, one line for each service that a person opens."""
        file = os.path.relpath(self.key_file) if self.key_file.is_relative_to(Path.cwd()) else self.key_file
        return (
            f"Dashboard and chat     {self.ui_url}   (sign in with the key in {file})\n"
            f"Control API            {self.api_url}/docs\n"
            f"OpenAI-compatible API  {self.inference_url}/v1"
        )

    def wait(self) -> None:
        """Wait until the user stops it (KeyboardInterrupt). Raises StartError when the supervisor dies."""
        while self.supervisor.poll() is None:
            time.sleep(0.2)
        raise StartError(f"the supervisor ended with status {self.supervisor.returncode}")


@contextlib.contextmanager
def running_stack(home: Path) -> Iterator[Running]:
    """Start the platform, wait until it is ready, and stop it when the block ends. Raises StartError and KeyboardInterrupt."""
    tree.adopt_orphans()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    argv = [sys.executable, "-m", "services.standalone", "supervise"]
    supervisor = spawn(argv, log=None, die_with=signal.SIGTERM, env={**os.environ, "NANOCHAT_HOME": str(home)})
    try:
        yield _wait_for(home / "stack.json", supervisor)
    finally:
        _stop(supervisor, home / "stack.json")


def supervise() -> int:
    """The supervisor's main program. Returns its exit status."""
    home = home_folder()
    described = home / "stack.json"
    try:
        home.mkdir(parents=True, exist_ok=True)
        held = lock(home / "lock", what=f"the platform in {home}", seconds=0.5)
        note_holder(held, os.getppid())  # `down` sends its signal to the console
        described.unlink(missing_ok=True)
        _run(home, described)
    except FileExistsError:
        _say(f"The platform cannot run: {home} is not a folder; name one with --home or NANOCHAT_HOME")
        return 1
    except (StartError, OSError) as err:
        _say(f"The platform cannot run: {err}")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def down() -> int:
    """Stop the stack that runs in this home, as Ctrl-C in its terminal does."""
    home = home_folder()
    holder = held_by(home / "lock")
    if holder is None:
        _say(f"No platform runs in {home}.")
        return 0
    os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while held_by(home / "lock") is not None:
        if time.monotonic() > deadline:
            _say(f"The platform in {home} (process {holder}) has not stopped within {STOP_S:.0f} s; see {home / 'logs'}.")
            return 1
        time.sleep(0.1)
    _say(f"Stopped the platform in {home}.")
    return 0


def _run(home: Path, described: Path) -> None:
    plan = roster(home)
    _say(f"Starting the platform in {home}; logs are in {home / 'logs'}")
    for line in plan.moved:
        _say(f"  ! {line}")
    stack = Stack(plan.waves, _say)

    def describe() -> None:
        urls = {f"{name}_url": url for name, url in plan.urls.items()}
        pids = {"console": os.getppid(), "supervisor": os.getpid(), **stack.pids}
        write_json(described, {**urls, "key_file": str(plan.key_file), "pids": pids})

    with stack.started():
        try:
            describe()
            stack.supervise(describe)
        finally:
            described.unlink(missing_ok=True)
            _say("Stopping the platform. Training saves a checkpoint first; press Ctrl-C again to stop at once.")
    _say("Stopped.")


def _wait_for(described: Path, supervisor: subprocess.Popen[bytes]) -> Running:
    while supervisor.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            told = json.loads(described.read_text(encoding="utf-8"))
            if told["pids"]["supervisor"] == supervisor.pid:  # otherwise the file is left from a stack that was killed
                return Running(told["api_url"], told["inference_url"], told["ui_url"], Path(told["key_file"]), supervisor)
        time.sleep(0.1)
    raise StartError("the platform did not start")


def _stop(supervisor: subprocess.Popen[bytes], described: Path) -> None:
    killed_from_outside = supervisor.poll() is not None and supervisor.returncode < 0
    _ask_to_stop(supervisor)
    while supervisor.poll() is None:
        try:
            supervisor.wait()
        except KeyboardInterrupt:
            _ask_to_stop(supervisor)
    if killed_from_outside:
        # The kernel has sent the servers their signals. A worker may still be writing a checkpoint.
        tree.end_all(seconds=30)
        described.unlink(missing_ok=True)


def _ask_to_stop(supervisor: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        supervisor.send_signal(signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, flush=True)
