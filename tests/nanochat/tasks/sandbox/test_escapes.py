"""Attacks on the sandbox: each must fail, leave nothing behind and not disturb the caller."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.tasks.sandbox import OUTPUT_CAP, Sandbox
from tests.nanochat.tasks.sandbox.attacks import ATTACKS, state
from tests.nanochat.tasks.sandbox.conftest import MODES

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's walls are Linux's")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module", autouse=True)
def secret() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "very-secret")
        yield


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails(box: Sandbox, name: str, port: int, tmp_path: Path, nothing_left: None):
    (tmp_path / "victim").write_text("safe")
    before = state(tmp_path)
    program = ATTACKS[name].format(folder=tmp_path, parent=os.getpid(), port=port)
    result = box.run(program, timeout_s=5)
    assert not result.success
    assert "SyntaxError" not in result.stderr
    assert state(tmp_path) == before


# By an interpreter and a copy of the code that this user can read, however the tree and the environment are protected.
AS_ORDINARY_USER = """
import json, os, sys
from pathlib import Path
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from attacks import ATTACKS, state
from nanochat.tasks.sandbox import Sandbox
folder, mode, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
(folder / "victim").write_text("safe")
box = Sandbox(namespaces=mode == "user namespaces")
before, got = state(folder), []
for name, attack in ATTACKS.items():
    program = attack.format(folder=folder, parent=os.getpid(), port=port)
    if box.run(program, timeout_s=5).success or state(folder) != before:
        got.append(name)
works = box.run("def f(x): return x + 1", "assert f(1) == 2").success
print(json.dumps({"user": os.geteuid(), "walls": box.walls, "works": works, "got": got}))
box.close()
"""


@pytest.fixture(scope="module")
def copy() -> Iterator[Path]:
    """What the sandbox consists of, readable by everybody."""
    with tempfile.TemporaryDirectory() as name:
        code = Path(name) / "code"
        shutil.copytree(ROOT / "libs/nanochat/tasks", code / "nanochat/tasks")
        shutil.copy(ROOT / "libs/nanochat/__init__.py", code / "nanochat")
        shutil.copy(Path(__file__).with_name("attacks.py"), code)
        for path in (code.parent, *code.rglob("*")):
            path.chmod(0o755)
        yield code


def ordinary_python() -> str:
    """An interpreter that another user may start. This one may be in somebody's home."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        real = Path(python).resolve()
        if real.exists() and all(folder.stat().st_mode & 0o001 for folder in (real, *real.parents)):
            asked = [python, "-c", "import sys; assert sys.version_info >= (3, 11)"]
            if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
                return python
    pytest.skip("no Python of 3.11 or later that an ordinary user may start")


@pytest.mark.parametrize("mode", MODES)
def test_they_fail_for_an_ordinary_user(mode: str, port: int, copy: Path):
    python = sys.executable if os.geteuid() else ordinary_python()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)  # another user's process writes here
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(copy),
            "SECRET": "very-secret",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [python, "-c", AS_ORDINARY_USER, folder, mode, str(port)]
        done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        seen = json.loads(done.stdout)
    if mode not in seen["walls"]:
        pytest.skip(f"this kernel offers an ordinary user no {mode}: {seen['walls']}")
    assert seen["user"] != 0
    assert seen["works"]
    assert seen["got"] == []


# -- more than there is --


@pytest.mark.parametrize(
    "program", ["x = [0] * 10**9", "x = bytearray(2**30)", "x = []\nwhile True: x.append(bytearray(2**20))"]
)
def test_a_memory_hog_is_stopped_and_named(box: Sandbox, program: str):
    result = box.run(program, memory_mib=128)
    assert not result.success
    assert result.memory


@pytest.mark.parametrize(
    ("ending", "timeout_s"),
    [("while True: pass", 0.5), ("import time; time.sleep(60)", 0.5), ("import threading; threading.Event().wait()", 0.5)],
)
def test_what_does_not_end_is_killed_though_it_ignores_signals(box: Sandbox, ending: str, timeout_s: float, nothing_left: None):
    deaf = "import signal\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
    start = time.monotonic()
    result = box.run(deaf + ending, timeout_s=timeout_s)
    assert result.timeout
    assert not result.success
    assert time.monotonic() - start < 15


def test_output_is_cut_off_and_bounded(box: Sandbox):
    result = box.run("while True: print('x' * 10_000)")
    assert not result.success
    assert not result.timeout
    assert len(result.stdout) == OUTPUT_CAP


def test_the_disk_does_not_fill_with_large_files(box: Sandbox, nothing_left: None):
    result = box.run("for i in range(40): open(f'{i}', 'wb').write(bytes(2**22))", timeout_s=10)
    assert not result.success


def test_one_file_is_bounded(box: Sandbox, nothing_left: None):
    assert not box.run("open('x', 'wb').truncate(2**24)").success


def test_the_disk_does_not_fill_with_small_files(box: Sandbox, nothing_left: None):
    assert not box.run("for i in range(10**5): open(f'{i}', 'w')", timeout_s=10).success


def test_descriptors_are_bounded(box: Sandbox):
    assert not box.run("import os; x = [os.pipe() for _ in range(1000)]").success


def test_threads_are_bounded_by_memory(box: Sandbox):
    threads = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()"
    assert not box.run(threads, timeout_s=5).success


def test_deep_folders_are_removed(box: Sandbox, nothing_left: None):
    result = box.run("import os\nfor i in range(400):\n  os.mkdir('d'); os.chdir('d')\nopen('f', 'w').write('x')")
    assert result.success, result.stderr


def test_folders_that_nobody_may_open_are_removed(box: Sandbox, nothing_left: None):
    box.run("import os\nos.makedirs('a/b/c'); os.mkdir('a/b/d', 0); os.symlink('/', 'a/b/l'); os.mkdir('e', 0)")


def test_one_program_sees_no_file_of_another(box: Sandbox):
    assert box.run("open('left', 'w').write('x')").success
    assert not box.run("assert open('left').read()").success


def test_bytes_that_are_no_text_do_no_harm(box: Sandbox):
    result = box.run("import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff')")
    assert result.success
    assert "\ufffd" in result.stdout


def test_the_sandbox_ends_with_its_owner():
    script = "from nanochat.tasks.sandbox import default as s; s.run('x = 1'); print(s._zygote._process.pid, flush=True); import os; os._exit(0)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/libs"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{done.stdout.strip()}").exists() and "Z" not in stat_of(done.stdout.strip()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stat_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except FileNotFoundError:
        return "Z"
