"""The tokenizer and the task data that a command uses: the user's, else those of the newest run on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from nanochat.contract.contract import MANIFEST, StageError
from nanochat.data import core_bundle
from nanochat.tasks.catalog import CORE_CONFIG, find_in_folder
from nanochat.tasks.source import INDEX, TaskSource
from nanochat.tokenizer import FILE, Tokenizer


def tokenizer(given: Path | None) -> tuple[Tokenizer, Path] | None:
    """A tokenizer and its folder; None if none is given and no run on this machine has made one. Raises StageError."""
    folder = given or _newest("tok_train", "tokenizer", FILE)
    return (Tokenizer.load(folder), folder) if folder else None


def task_source(given: Path | None) -> TaskSource | None:
    """Task data; None if none is given and no run on this machine has any. Raises StageError."""
    if given is None:
        folder = _newest("data", "tasks", INDEX)
        return TaskSource.load(folder) if folder else None
    if not given.is_dir():
        raise StageError(f"no folder {given}", code="folder_missing", hint="give the folder of task data, as in data.tasks")
    files = {key: tuple(paths) for key, paths in find_in_folder(given).items()}
    return TaskSource(files, given)


def core(given: Path | None, tasks: Path | None) -> Path | None:
    """The folder of a CORE bundle: the one given, the one in the folder of task data, else that of the newest run."""
    if given is not None:
        return given
    if tasks is not None:
        return tasks / "core" if (tasks / "core" / CORE_CONFIG).is_file() else None
    folder = _newest("data", "core", "core.json")
    return core_bundle.bundle_root(folder) if folder else None


def _newest(stage: str, artifact: str, file: str) -> Path | None:
    """The newest finished artifact of a stage, of the runs of `nanochat local-run` and of the platform."""
    home = Path(os.environ.get("NANOCHAT_HOME") or ".nanochat")
    folders = [p for runs in ("local", "runs") for p in home.glob(f"{runs}/*/{stage}/attempt-*/{artifact}")]
    finished = [p for p in folders if (p / MANIFEST).is_file() and (p / file).is_file()]
    return max(finished, key=lambda p: p.stat().st_mtime, default=None)
