"""A machine that cannot confine programs: HumanEval is refused before any work, unless the recipe trusts what its model writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanochat.tasks.programs import confinement

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="takes the kernel's walls away by a seccomp filter")

# What a container of old does: no namespaces and no Landlock, for this process and all that it starts.
OLD_KERNEL = """
import ctypes, os, struct, sys
from nanochat.tasks.confined import kernel
lines = [(0x20, 0, 0, 0)]
for number in (272 if os.uname().machine == "x86_64" else 97, 444):
    lines += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050001)]
lines += [(0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.seccomp_filter(code, len(lines))
"""


def on_an_old_kernel(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/libs:{ROOT}"}
    command = [sys.executable, "-c", OLD_KERNEL + script]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_a_run_is_refused_before_its_first_stage(tmp_path: Path):
    script = "from nanochat.local.run import main; sys.exit(main(['tiny', '--out', 'run', '--overrides', '{\"chat_eval.tasks\": [\"humaneval\"]}']))"
    done = on_an_old_kernel(script, tmp_path)
    assert done.returncode == 64, done.stderr
    assert "chat_eval.tasks: humaneval runs programs that the model writes, and this machine cannot confine them" in done.stderr
    assert "set chat_eval.trust_generated_code" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_users_own_task_that_runs_programs_is_refused_too(tmp_path: Path):
    (tmp_path / "own.jsonl").write_text(
        json.dumps({"question": "Write f.", "test": "def check(f): assert f() == 1", "entry_point": "f"}) + "\n"
    )
    script = """
from pathlib import Path
from nanochat.stages.chat_eval import _own
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask
source, use = TaskSource(root=Path.cwd()), OwnTask(name="mine", jsonl="own.jsonl")
print(len(_own(use, source, True)))
_own(use, source, False)
"""
    done = on_an_old_kernel(script, tmp_path)
    assert done.stdout == "1\n", done.stderr
    assert "mine runs programs that the model writes, and this machine cannot confine them" in done.stderr


def test_a_recipe_that_trusts_its_model_runs_them_with_limits(tmp_path: Path):
    script = """
from nanochat.tasks import sandbox
from nanochat.tasks.programs import confinement
print(confinement(["gsm8k", "humaneval"], True))
print(confinement(["gsm8k"], False))
print(sandbox.run("def f(x): return x + 1", "assert f(1) == 2").success, sandbox.run("while True: pass", timeout_s=0.3).timeout)
"""
    done = on_an_old_kernel(script, tmp_path)
    assert done.stdout == "seccomp, resource limits\nNone\nTrue True\n", done.stderr


def test_what_confines_programs_is_said(tmp_path: Path):
    said = confinement(["humaneval"], False)
    assert said is not None
    assert said.endswith("seccomp, resource limits")
    assert "user namespaces" in said or "Landlock" in said
