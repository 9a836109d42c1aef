"""Tasks by the name a recipe gives them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nanochat.config.recipe import TaskUse
from nanochat.contract.contract import StageError
from nanochat.tasks.arc import Arc
from nanochat.tasks.base import Task
from nanochat.tasks.catalog import splits_of
from nanochat.tasks.counting import Counting
from nanochat.tasks.dataset import DatasetTask
from nanochat.tasks.generated import GeneratedTask
from nanochat.tasks.gsm8k import Gsm8k
from nanochat.tasks.humaneval import HumanEval
from nanochat.tasks.identity import Identity
from nanochat.tasks.mmlu import Mmlu
from nanochat.tasks.rows import Rows
from nanochat.tasks.smoltalk import Conversations, read_jsonl
from nanochat.tasks.source import TaskSource
from nanochat.tasks.spelling import Spelling
from nanochat.tasks.sums import Sums

DEFAULT_SIZE = 1000  # rows of a generated task when a recipe names no size

_DATASETS: dict[str, Callable[[Rows], DatasetTask]] = {
    "smoltalk": Conversations,
    "mmlu": Mmlu,
    "arc_easy": Arc,
    "arc_challenge": Arc,
    "gsm8k": Gsm8k,
    "humaneval": HumanEval,
}
_GENERATED: dict[str, Callable[[TaskSource, str, int], GeneratedTask]] = {
    "identity": lambda _source, split, size: Identity(split, size),
    "spelling": lambda source, split, size: Spelling(source.words, split, size),
    "counting": lambda source, split, size: Counting(source.words, split, size),
    "sums": lambda _source, split, size: Sums(split, size),
}


def load(use: TaskUse, source: TaskSource) -> Task:
    """One entry of a recipe's mixture (its `repeat` is the mixture's business)."""
    return named(use.task, use.split, source, size=use.size, limit=use.limit, path=use.path)


def named(
    task: str, split: str, source: TaskSource, *, size: int | None = None, limit: int | None = None, path: str | None = None
) -> Task:
    """A task by name. `size` is for generated ones, `path` for `jsonl`, `limit` takes the first rows.

    Raises StageError when there is no such task or split, or its data are missing.
    """
    if task == "jsonl":
        if path is None:
            raise StageError("task jsonl names no file", code="bad_task", hint="give its `path`")
        return read_jsonl((source.root or Path()) / Path(path).expanduser(), limit)
    if task not in _DATASETS and task not in _GENERATED:
        raise StageError(f"no task {task!r}", code="bad_task", hint=f"known: {', '.join([*_DATASETS, *_GENERATED, 'jsonl'])}")
    if split not in splits_of(task):
        raise StageError(f"task {task} has no split {split!r}", code="bad_task", hint=f"it has: {', '.join(splits_of(task))}")
    if task in _GENERATED:
        rows = min(size or DEFAULT_SIZE, limit or size or DEFAULT_SIZE)
        return _GENERATED[task](source, split, rows)
    loaded = _DATASETS[task](source.rows(f"{task}/{split}").first(limit))
    loaded.name = task
    return loaded
