"""The import walls hold: the linter reports each forbidden import that is added to a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]

# file, the import added to it, words from the name of the contract that must break
BREACHES = [
    ("libs/nanochat/planning/plan.py", "import torch", "no torch"),
    ("libs/nanochat/config/recipe.py", "import torch.nn", "no torch"),
    ("libs/nanochat/contract/events.py", "from nanochat.model.gpt import GPT", "no torch"),
    ("libs/controlplane/claims.py", "import torch", "no torch"),
    ("services/api/runs/intake.py", "from nanochat.tokenizer import Tokenizer", "config, planning and contract"),
    ("libs/nanochat/report/build.py", "from nanochat.eval import machine", "no torch"),
    ("services/worker/supervisor.py", "import torch", "no torch"),
    ("libs/controlplane/leaderboard.py", "from nanochat.report import cells", "not for the ledger or the worker"),
    ("services/worker/spool.py", "from nanochat.tasks.base import Task", "config, planning and contract"),
    ("libs/client/client.py", "import nanochat.planning.plan", "the client knows only HTTP"),
    ("libs/client/client.py", "import torch", "no torch"),
    ("libs/client/watch.py", "from controlplane.lifecycle import StageStatus", "the client knows only HTTP"),
    ("libs/client/text.py", "import services.api.settings", "the client knows only HTTP"),
    ("libs/nanochat/eval/machine.py", "import sqlalchemy", "nanochat knows no service"),
    ("libs/nanochat/model/gpt.py", "from nanochat.train.loop import Trainer", "one direction"),
    ("libs/nanochat/tasks/base.py", "from nanochat.planning.plan import plan", "table of tasks"),
    ("libs/controlplane/views.py", "import fastapi", "the ledger knows no service"),
    ("services/ui/app.py", "import services.inference.app", "no service imports another"),
    ("services/logs.py", "import controlplane.db", "what the services share"),
    ("services/ui/app.py", "from nanochat.config import recipe", "the UI is a client"),
    ("services/inference/app.py", "import controlplane.db", "reach the ledger over HTTP only"),
    ("services/inference/registry.py", "from nanochat.engine.engine import Engine", "torch is in the engine processes"),
    ("services/api/app.py", "from client.client import Client", "neither a client nor the stack"),
    ("services/worker/supervisor.py", "import services.standalone.stack", "neither a client nor the stack"),
    ("services/api/runs/intake.py", "import numpy", "neither a client nor the stack"),
    ("libs/nanochat/data/loader.py", "from nanochat.model.gpt import GPT", "text and tasks know no model"),
    ("libs/nanochat/tasks/base.py", "from nanochat.engine import Engine", "text and tasks know no model"),
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("walls")
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("libs", "services"):
        shutil.copytree(ROOT / name, root / name, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def lint(root: Path) -> tuple[int, list[str]]:
    """The linter's exit code and the names of the contracts that it reports as broken."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "libs"), str(root)]), "COLUMNS": "400"}
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    return done.returncode, re.findall(r"^(.*) BROKEN(?: \(.*\))?$", done.stdout, re.M)


def test_the_tree_as_it_is_keeps_every_contract(copy: Path) -> None:
    assert lint(copy) == (0, [])


@pytest.mark.parametrize(("file", "line", "contract"), BREACHES, ids=[f"{b[0]}-{b[1]}" for b in BREACHES])
def test_a_forbidden_import_is_reported(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(f"{before}\n{line}\n", encoding="utf-8")
        code, broken = lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert code
    assert any(contract in name for name in broken), broken


def test_every_contract_is_breached_once() -> None:
    for contract in CONTRACTS:
        assert any(word in contract["name"] for _, _, word in BREACHES), f"no import here breaks {contract['name']!r}"


def test_every_room_of_nanochat_is_either_torch_free_or_closed_to_the_platform() -> None:
    library = ROOT / "libs" / "nanochat"
    rooms = {f"nanochat.{p.parent.name}" for p in library.glob("*/__init__.py")}
    rooms |= {f"nanochat.{p.stem}" for p in library.glob("*.py") if not p.stem.startswith("__")}
    torch_free, platform = CONTRACTS[:2]
    assert rooms == set(platform["forbidden_modules"]) | {m for m in torch_free["source_modules"] if m.startswith("nanochat.")}
