"""The identity of a process: neither a step of the clock nor a pid that is used again makes it another's."""

from __future__ import annotations

import json
import subprocess
import sys

import psutil
import pytest

from services.worker import processes

SHOW = "import json, sys; from services.worker import processes; print(json.dumps(processes.identity()), flush=True); sys.stdin.read()"


def test_a_step_of_the_clock_changes_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    me = processes.identity()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 1.0)  # what a step of the clock does to it
    assert processes.is_alive(me)
    assert processes.identity() == me


def test_an_identity_ends_with_its_process() -> None:
    with subprocess.Popen([sys.executable, "-c", SHOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        who = json.loads(child.stdout.readline())
        assert processes.is_alive(who)
        assert not processes.is_alive({**who, "ticks": who["ticks"] - 1})  # its pid is used again
        assert not processes.is_alive({**who, "boot": "an earlier one"})
        child.kill()
        child.wait()
    assert not processes.is_alive(who)


def test_an_identity_of_an_earlier_version_is_of_an_ended_process() -> None:
    me = processes.identity()
    assert not processes.is_alive({"host": me["host"], "pid": me["pid"], "born": psutil.Process().create_time()})
