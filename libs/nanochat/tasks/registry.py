"""Loads tasks by the name that a recipe gives them."""

from __future__ import annotations

import importlib

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Task
from nanochat.tasks.catalog import BY_NAME, TaskDef
from nanochat.tasks.chat_file import open_checked
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import TaskUse


def load(use: TaskUse, source: TaskSource) -> Task:
    """The task of one entry of a recipe's mixture. The mixture itself handles `repeat`."""
    return named(use.task, use.split, source, size=use.size, limit=use.limit, path=use.path)


def named(
    task: str, split: str, source: TaskSource, *, size: int | None = None, limit: int | None = None, path: str | None = None
) -> Task:
    """A task by name. `size` is for generated tasks, `path` for `jsonl`; `limit` takes the first rows.

    Raises StageError when there is no such task or split, or its data are missing.
    """
    if task not in BY_NAME:
        raise StageError(f"no task {task!r}", code="bad_task", hint=f"known: {', '.join(BY_NAME)}")
    definition = BY_NAME[task]
    if definition.kind == "file":
        if path is None:
            raise StageError("task jsonl names no file", code="bad_task", hint="give its `path`")
        own: Task = _class_of(definition)(definition, open_checked(source.own_file(path)), limit)
        return own
    if split not in definition.split_names:
        raise StageError(
            f"task {task} has no split {split!r}", code="bad_task", hint=f"it has: {', '.join(definition.split_names)}"
        )
    if definition.kind == "generated":
        rows = definition.rows(split, size) or 0
        generated: Task = _class_of(definition)(definition, split, min(rows, limit or rows), source)
        return generated
    dataset: Task = _class_of(definition)(definition, source.rows(f"{task}/{split}").first(limit))
    return dataset


def check(task: str, source: TaskSource) -> None:
    """Make every problem of a task's test split. Raises StageError that names the first row of which none can be made."""
    problems = named(task, "test", source)
    for index in range(len(problems)):
        try:
            problems[index]
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as err:
            raise StageError(
                f"row {index} of task {task}, in its shuffled order, makes no problem: {type(err).__name__}: {err}",
                code="task_data_damaged",
                hint="fetch its data again",
            ) from err


def _class_of(definition: TaskDef) -> type:
    module, _, name = definition.loads.partition(":")
    found: type = getattr(importlib.import_module(f"nanochat.tasks.{module}"), name)
    return found
