"""The supervisor with small real programs: order, restarts with growing pauses, no process left behind however it ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

from .processes import gone, start_script

# Writes its own pid and that of a child in a session of its own (as torchrun's ranks are), then runs until SIGTERM.
SERVER = """
import os, signal, subprocess, sys, time
name, folder = sys.argv[1:]
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
def stop(*_):
    open(f"{folder}/order", "a").write(name + "\\n")
    raise SystemExit
signal.signal(signal.SIGTERM, signal.SIG_IGN if name == "deaf" else stop)
open(f"{folder}/{name}.tmp", "w").write(f"{os.getpid()} {child.pid}")
if name == "broken":
    child.kill()
    sys.exit("cannot go on: the reason")
os.rename(f"{folder}/{name}.tmp", f"{folder}/{name}.pids")
time.sleep(600)
"""

SUPERVISOR = """
import json, os, sys
from pathlib import Path
from services.standalone.child import StartError
from services.standalone.stack import Program, Stack
folder, waves = Path(sys.argv[1]), json.loads(sys.argv[2])
def program(name):
    return Program(
        name, [str(folder / "server.py"), name, str(folder)], env=lambda: dict(os.environ), log=folder / f"{name}.log",
        ready=(folder / f"{name}.pids").exists, grace_s={"deaf": 0.5, "slow": 90}.get(name, 10),
    )
stack = Stack([[program(name) for name in wave] for wave in waves])
try:
    with stack.started():
        print("up", flush=True)
        stack.supervise(lambda: print("changed", flush=True))
except KeyboardInterrupt:
    pass
except StartError as err:
    sys.exit(str(err))
"""


class Supervised:
    def __init__(self, folder: Path, waves: list[list[str]]):
        (folder / "server.py").write_text(SERVER)
        self.folder = folder
        self.process = start_script(SUPERVISOR, str(folder), json.dumps(waves))

    def wait_for(self, line: str) -> str:
        assert self.process.stdout is not None
        for said in self.process.stdout:
            if line in said:
                return said
        raise AssertionError(f"it ended without saying {line!r}")

    def pids(self, *names: str) -> list[int]:
        return [int(pid) for name in names for pid in (self.folder / f"{name}.pids").read_text().split()]

    def order_of_stopping(self) -> list[str]:
        return (self.folder / "order").read_text().split()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[type[Supervised]]:
    yield Supervised
    for pids in tmp_path.glob("*.pids"):
        for pid in pids.read_text().split():
            assert gone(int(pid)), f"{pids.stem} left a process behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_in_reverse_order_and_leaves_no_orphan(
    number: signal.Signals, supervised: type[Supervised], tmp_path: Path
) -> None:
    stack = supervised(tmp_path, [["store"], ["door"], ["work"]])
    stack.wait_for("up")
    pids = stack.pids("store", "door", "work")
    assert not gone(*pids)
    stack.process.send_signal(number)
    assert stack.process.wait(20) == 0
    assert stack.order_of_stopping() == ["work", "door", "store"]
    assert gone(*pids)


def test_a_server_that_ignores_sigterm_is_killed_after_its_grace(supervised: type[Supervised], tmp_path: Path) -> None:
    stack = supervised(tmp_path, [["deaf"]])
    stack.wait_for("up")
    stack.process.terminate()
    assert stack.process.wait(20) == 0


def test_a_second_signal_stops_at_once(supervised: type[Supervised], tmp_path: Path) -> None:
    stack = supervised(tmp_path, [["slow"]])
    stack.wait_for("up")
    server = stack.pids("slow")[0]
    os.kill(server, signal.SIGSTOP)  # so it cannot react to SIGTERM within its 90 seconds
    stack.process.terminate()
    until(lambda: not gone(server) and signal.SIGTERM in pending(server), "SIGTERM to arrive")
    stack.process.terminate()
    assert stack.process.wait(30) == 0


def test_a_crashed_server_is_started_again_after_growing_pauses(supervised: type[Supervised], tmp_path: Path) -> None:
    stack = supervised(tmp_path, [["steady", "fragile"]])
    stack.wait_for("up")
    steady, fragile = stack.pids("steady"), stack.pids("fragile")
    for pause in ("0.5", "1.0"):
        (tmp_path / "fragile.pids").rename(tmp_path / f"before {pause}.pids")
        os.kill(fragile[0], signal.SIGKILL)
        said = stack.wait_for("! fragile")
        assert "ended with status -9" in said
        assert f"again in {pause} s" in said
        stack.wait_for("changed")
        until((tmp_path / "fragile.pids").exists, "the new process")
        fragile = stack.pids("fragile")
    assert stack.pids("steady") == steady
    stack.process.terminate()
    assert stack.process.wait(20) == 0


def test_a_server_that_cannot_start_is_named_with_the_end_of_its_log(supervised: type[Supervised], tmp_path: Path) -> None:
    stack = supervised(tmp_path, [["store"], ["broken"]])
    said, _ = stack.process.communicate(timeout=30)
    assert stack.process.returncode == 1
    assert "broken ended with status 1 while starting. The last lines of its log:\ncannot go on: the reason" in said
    assert str(tmp_path / "broken.log") in said
    assert gone(*stack.pids("store"))


def test_servers_end_when_the_supervisor_is_killed(supervised: type[Supervised], tmp_path: Path) -> None:
    stack = supervised(tmp_path, [["store"], ["work"]])
    stack.wait_for("up")
    servers = [stack.pids("store")[0], stack.pids("work")[0]]
    stack.process.kill()
    stack.process.wait()
    until(lambda: gone(*servers), "the servers to end")
    assert sorted(stack.order_of_stopping()) == ["store", "work"]  # the kernel signals them, in no order
    left = [stack.pids("store")[1], stack.pids("work")[1]]  # the console ends what they leave behind
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    until(lambda: gone(*left), "the rest to end")


def pending(pid: int) -> set[int]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("ShdPnd:"):
            bits = int(line.split()[1], 16)
            return {number + 1 for number in range(64) if bits >> number & 1}
    raise AssertionError
