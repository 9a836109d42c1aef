"""The commands when they end before anything starts; the messages about ports; the measurement of memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from client.errors import ClientError
from client.settings import discover
from nanochat.contract.contract import Exit
from services.standalone import roster
from services.standalone.child import held_by, lock
from services.standalone.tree import PeakMemory
from tests.waiting import until

from .processes import environment

ROOT = Path(__file__).parents[2]


def command(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.standalone", *arguments],
        cwd=ROOT,
        env={**environment(), "NANOCHAT_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_second_stack_in_the_same_home_is_refused_with_the_pid(tmp_path: Path) -> None:
    held = lock(tmp_path / "lock", what="this", seconds=1)
    done = command("up", home=tmp_path)
    os.close(held)
    assert done.returncode == 1
    assert f"the platform in {tmp_path} is already in use by the process {os.getpid()};" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lock"]


def test_down_without_a_stack_says_so(tmp_path: Path) -> None:
    done = command("down", home=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, f"No platform runs in {tmp_path}.")


def test_a_home_that_is_a_file_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "home"
    file.write_text("")
    done = command("up", home=file)
    assert (done.returncode, f"{file} is not a folder" in done.stdout) == (1, True)
    assert command("down", home=file).stdout.strip() == f"No platform runs in {file}."
    monkeypatch.setenv("NANOCHAT_HOME", str(file))
    with pytest.raises(ClientError, match="is not a folder"):
        discover()


@pytest.mark.parametrize(("folder", "told"), [("missing", "no folder"), ("empty", "holds no .parquet, .jsonl or .txt file")])
def test_demo_refuses_a_data_folder_before_it_starts_anything(folder: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = command("demo", home=tmp_path / "home", DATA=str(tmp_path / folder))
    assert (done.returncode, done.stdout) == (Exit.BAD_INPUT, "")
    assert told in done.stderr
    assert str(tmp_path / folder) in done.stderr
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("setting", ["nope", "base.nope=1", "base.num_iterations=-3"])
def test_demo_refuses_a_setting_before_it_starts_anything(setting: str, tmp_path: Path) -> None:
    done = command("demo", home=tmp_path / "home", SET=setting)
    assert (done.returncode, done.stdout) == (Exit.BAD_INPUT, "")
    assert setting.partition("=")[0] in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_taken_port_is_replaced_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(roster, "PORTS", {"api": port, "inference": 0, "ui": 0})
        plan = roster.roster(tmp_path)
        assert plan.urls["api"] != f"http://127.0.0.1:{port}"
        assert plan.moved[0] == f"port {port} is taken by another program; api is at {plan.urls['api']}"


def test_the_lock_tells_its_holder_and_is_free_again(tmp_path: Path) -> None:
    assert held_by(tmp_path / "lock") is None
    held = lock(tmp_path / "lock", what="this", seconds=1)
    assert held_by(tmp_path / "lock") == os.getpid()
    os.close(held)
    assert held_by(tmp_path / "lock") is None


def test_peak_memory_counts_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PeakMemory, "EVERY_S", 0.05)
    script = "import sys; filled = bytearray(200 << 20); print('up', flush=True); sys.stdin.read()"
    with (
        PeakMemory().watching() as memory,
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        until(lambda: memory.bytes > 200 << 20, "the measurement")
        child.stdin.close()
    assert memory.bytes < 4 << 30
