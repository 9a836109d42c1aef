"""Attacks on the sandbox: each must fail, leave nothing behind and not disturb the caller."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from nanochat.tasks import sandbox

LINUX = sys.platform == "linux"


def test_a_correct_program_succeeds_with_its_output():
    result = sandbox.run(
        "import math, re, typing, collections, heapq, hashlib\nprint(math.comb(5, 2))\nassert re.match('a', 'ab')"
    )
    assert result.success
    assert result.stdout == "10\n"
    assert not result.timeout
    assert not result.memory


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("input()", "EOFError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("quit()", "NameError"),
    ],
)
def test_a_program_that_does_not_reach_its_end_fails(program, says):
    result = sandbox.run(program)
    assert not result.success
    assert says in result.stderr


def test_leaving_by_the_back_door_is_no_success():
    assert not sandbox.run("import os; os._exit(0)").success


def test_an_endless_loop_is_killed_on_time():
    start = time.monotonic()
    result = sandbox.run("while True: pass", timeout_s=0.5)
    assert result.timeout
    assert not result.success
    assert time.monotonic() - start < 5


def test_a_sleeper_that_ignores_signals_is_killed_on_time():
    result = sandbox.run(
        "import signal, time\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)", timeout_s=0.5
    )
    assert result.timeout


@pytest.mark.parametrize(
    "program", ["x = [0] * 10**9", "x = bytearray(2**30)", "x = []\nwhile True: x.append(bytearray(2**20))"]
)
def test_a_memory_hog_is_stopped_and_named(program):
    result = sandbox.run(program, memory_mib=256)
    assert not result.success
    assert result.memory


def test_output_is_capped():
    result = sandbox.run("while True: print('x' * 10_000)")
    assert not result.success
    assert len(result.stdout) == sandbox.OUTPUT_CAP


def test_the_environment_is_scrubbed(monkeypatch):
    monkeypatch.setenv("NANOCHAT_API_KEY", "very-secret")
    result = sandbox.run("import os; print(os.environ)")
    assert result.success
    assert "very-secret" not in result.stdout


def test_it_writes_in_its_own_folder_which_is_gone_afterwards():
    result = sandbox.run("import os\nopen('a.txt', 'w').write('x')\nprint(os.getcwd())")
    assert result.success
    assert not Path(result.stdout.strip()).exists()


ATTACKS = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True:\n  try: os.fork()\n  except OSError as e: raise SystemExit(repr(e))",
    "subprocess": "import subprocess; subprocess.run(['true'])",
    "system": "import os\nassert os.system('true') == 0",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()",
    "spawn": "import os; os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "import os; os.execv('/bin/true', ['true'])",
    "socket": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "raw socket": "import _socket; _socket.socket()",
    "http": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')",
    "ctypes": "import ctypes; ctypes.CDLL(None).system(b'true')",
    "write": "open('{target}', 'w').write('x')",
    "write by descriptor": "import os; os.open('{target}', os.O_CREAT | os.O_WRONLY)",
    "write up": "open('../escaped', 'w')",
    "symlink": "import os; os.symlink('{target}', 'l'); open('l', 'w')",
    "mkdir": "import os; os.mkdir('{target}')",
    "remove": "import os; os.remove('{victim}')",
    "rmtree": "import shutil; shutil.rmtree('{folder}')",
    "chmod": "import os; os.chmod('{victim}', 0)",
    "rename": "import os; os.rename('{victim}', 'mine')",
    "kill the parent": "import os; os.kill(os.getppid(), 9)",
    "lift a limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_fails_and_leaves_no_trace(attack, tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "target"
    victim.write_text("safe")
    program = ATTACKS[attack]
    for key, value in {"target": target, "victim": victim, "folder": tmp_path, "port": 9}.items():
        program = program.replace("{" + key + "}", str(value))
    result = sandbox.run(program, timeout_s=3)
    assert not result.success
    assert victim.read_text() == "safe"
    assert victim.stat().st_mode & 0o400
    assert not target.exists()


@pytest.mark.skipif(not LINUX, reason="the kernel's walls are Linux's")
def test_secrets_outside_cannot_be_read(tmp_path):
    (tmp_path / "admin.key").write_text("very-secret")
    result = sandbox.run(f"print(open({str(tmp_path / 'admin.key')!r}).read())")
    if "landlock" not in result.walls:
        pytest.skip("this kernel has no Landlock")
    assert not result.success
    assert "very-secret" not in result.stdout


@pytest.mark.skipif(not LINUX, reason="the kernel's walls are Linux's")
@pytest.mark.parametrize(
    "attack", ["os.fork()", "__import__('socket').socket()", "os.kill(os.getppid(), 0)", "open('/tmp/nanochat-escape', 'w')"]
)
def test_the_kernel_refuses_what_gets_past_python(attack, tmp_path):
    """The kernel's limits hold without the audit hook, as if the program had circumvented it."""
    script = f"""
        import os, sys
        sys.path.insert(0, {str(sandbox.GUARD.parent)!r})
        import sandbox_guard, socket
        walls = sandbox_guard.raise_walls({{"cpu_s": 5, "memory": 2**29, "file": 2**20, "cwd": {str(tmp_path)!r}}})
        if len(walls) < 2:
            os._exit(77)
        try:
            {attack}
        except PermissionError:
            os._exit(0)
        os._exit(1)
    """
    code = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], timeout=20).returncode
    if code == 77:
        pytest.skip("this kernel lacks seccomp or Landlock")
    assert code == 0
    assert not os.path.exists("/tmp/nanochat-escape")


def test_many_threads_are_bounded_by_memory():
    result = sandbox.run(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", timeout_s=3
    )
    assert not result.success
