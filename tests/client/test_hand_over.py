"""Commands that start a process of their own: whenever SIGTERM comes, it leaves no orphan."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from client.processes import READ_HERE, module
from tests.client.terminal import terminal
from tests.waiting import until

MARK = "NANOCHAT_TEST_HAND_OVER"
# It tells when it is about to start its child, so that a signal can be aimed at that moment.
STARTER = """
import sys
from client.processes import hand_over
print("now", flush=True)
sys.exit(hand_over(["-c", "import time; time.sleep(60)"]))
"""
# The signal comes while the child exists and the parent does not know it yet.
WITHIN = """
import os, signal, subprocess, sys
from client.processes import hand_over
make = subprocess.Popen._execute_child
def signalled(self, *args, **options):
    make(self, *args, **options)
    os.kill(os.getpid(), signal.SIGTERM)
subprocess.Popen._execute_child = signalled
sys.exit(hand_over(["-c", "import time; time.sleep(60)"]))
"""


def start(code: str, mark: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, MARK: mark})


def alive(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_sigterm_while_the_child_is_made_reaches_it() -> None:
    parent = start(WITHIN, "within")
    assert parent.wait(60) == 128 + signal.SIGTERM
    assert not alive("within")


def test_a_sigterm_at_any_moment_leaves_no_orphan() -> None:
    chance = random.Random(7)
    for number in range(10):
        mark = f"try-{number}"
        parent = start(STARTER, mark)
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"now\n"
        time.sleep(chance.uniform(0, 0.02))
        parent.terminate()
        assert parent.wait(60) in (128 + signal.SIGTERM, -signal.SIGTERM)  # the latter: before it was in hand_over
        until(lambda mark=mark: not alive(mark), f"the processes of try {number} to end")  # type: ignore[misc]
        parent.stdout.close()


def test_ctrl_c_waits_for_the_child() -> None:
    child = "print(1, flush=True); input(); raise SystemExit(7)"
    code = f"from client.processes import hand_over; raise SystemExit(hand_over(['-c', {child!r}]))"
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"1\n"
    parent.send_signal(signal.SIGINT)  # to the parent alone
    parent.communicate(b"\n", timeout=60)
    assert parent.returncode == 7


def test_ctrl_c_prints_no_traceback_of_the_child() -> None:
    with terminal("doctor") as running:
        running.wait_for("packages")  # torch is imported next, which takes seconds
        running.type("\x03")
        done = running.end()
    assert (done.code, "Traceback" in done.out) == (130, False)


def test_the_child_sees_its_own_arguments_and_its_errors_are_told() -> None:
    done = subprocess.run([sys.executable, *module("json.tool", "--no-such")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)
    done = subprocess.run([sys.executable, *module("no_such_module")], capture_output=True, text=True, check=False)
    assert (done.returncode, "No module named no_such_module" in done.stderr) == (1, True)


def test_a_full_disk_is_one_line_of_the_child_too() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, *module("this")], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "nanochat: No space left on device\n")


def test_a_child_that_is_read_here_writes_utf_8(tmp_path: Path) -> None:
    (tmp_path / "speaks.py").write_text("print('\u00fc \u05e9')", encoding="utf-8")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(tmp_path)}
    told = [
        subprocess.run([sys.executable, *module("speaks")], capture_output=True, env={**environment, **more}, check=True).stdout
        for more in ({}, READ_HERE)
    ]
    assert told == [b"? ?\n", "\u00fc \u05e9\n".encode()]
