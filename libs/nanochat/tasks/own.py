"""A user's own evaluations: files of questions, and classes that Python packages offer by an entry point."""

from __future__ import annotations

from importlib.metadata import entry_points

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Task
from nanochat.tasks.chat_file import own_path
from nanochat.tasks.questions import Questions
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask

GROUP = "nanochat.tasks"  # of the entry points


def load(use: OwnTask, source: TaskSource) -> Task:
    """The task of a recipe's `chat_eval.own`. Raises StageError when its file has a wrong line, or no package offers it."""
    return Questions.read(use.name, own_path(use.jsonl, source.root)) if use.jsonl else offered(use.name, source)


def check(use: OwnTask, source: TaskSource) -> None:
    """Make every problem of the task. Raises StageError, naming the first of which none can be made."""
    task = load(use, source)
    for index in range(len(task)):
        try:
            task[index]
        except StageError:
            raise
        except Exception as err:  # anything may go wrong in a user's code
            raise StageError(
                f"row {index} of task {use.name!r} makes no problem: {type(err).__name__}: {err}", code="bad_task"
            ) from err


def offered(name: str, source: TaskSource) -> Task:
    """The task that an installed package offers under this name: its entry point is called with the run's `TaskSource`."""
    found = entry_points(group=GROUP, name=name)
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=GROUP)})) or "none"
        raise StageError(
            f"no installed package offers the task {name!r}; offered: {known}",
            code="bad_task",
            hint="install the package where the worker runs, or give a `jsonl`",
        )
    try:
        task = next(iter(found)).load()(source)
    except StageError:
        raise
    except Exception as err:  # anything may go wrong in a user's code
        raise StageError(f"task {name!r} cannot be loaded: {type(err).__name__}: {err}", code="bad_task") from err
    if not isinstance(task, Task):
        raise StageError(f"task {name!r} is a {type(task).__name__}, not a nanochat.tasks.base.Task", code="bad_task")
    return task
