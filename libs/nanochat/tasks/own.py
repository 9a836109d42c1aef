"""A user's own evaluations: files of questions, and classes that Python packages offer by an entry point."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import get_args

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation, EvalType, Task
from nanochat.tasks.chat_file import own_path
from nanochat.tasks.questions import Questions
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnTask

GROUP = "nanochat.tasks"  # of the entry points
_OF_ITS_CODE = (Exception, SystemExit)  # what may go wrong in a user's code


def load(use: OwnTask, source: TaskSource) -> Task:
    """The task of a recipe's `chat_eval.own`. Raises StageError when its file has a wrong line, or no package offers it."""
    return Questions.read(use.name, own_path(use.jsonl, source.root)) if use.jsonl else offered(use.name, source)


def check(use: OwnTask, source: TaskSource) -> None:
    """Make every problem of the task. Raises StageError, naming the first of which none can be made."""
    task = load(use, source)
    try:
        size = len(task)
    except _OF_ITS_CODE as err:
        raise StageError(f"task {use.name!r} cannot say how many rows it has: {_said(err)}", code="bad_task") from err
    if not size:
        raise StageError(f"task {use.name!r} has no rows", code="bad_task", hint="mend it, or leave it out of chat_eval.own")
    for index in range(size):
        try:
            _require_problem(task[index], ranked=task.eval_type == "categorical")
        except StageError:
            raise
        except _OF_ITS_CODE as err:
            raise StageError(f"row {index} of task {use.name!r} makes no problem: {_said(err)}", code="bad_task") from err


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
    except _OF_ITS_CODE as err:
        raise StageError(f"task {name!r} cannot be loaded: {_said(err)}", code="bad_task") from err
    if not isinstance(task, Task):
        raise StageError(f"task {name!r} is a {type(task).__name__}, not a nanochat.tasks.base.Task", code="bad_task")
    if task.eval_type not in get_args(EvalType):
        raise StageError(
            f"task {name!r} has the eval_type {task.eval_type!r}; known: {', '.join(get_args(EvalType))}", code="bad_task"
        )
    return task


def _require_problem(conversation: Conversation, *, ranked: bool) -> None:
    """Raises ValueError, or what else goes wrong, unless a model can be asked this and the answer be ranked or read."""
    roles = [message["role"] for message in conversation["messages"]]
    if roles[-1:] != ["user"] and roles[-2:] != ["user", "assistant"]:
        raise ValueError("its messages do not end with a question of the user, with or without its answer")
    if ranked and not conversation.get("letters"):
        raise ValueError("it has no `letters`, of which a categorical task's answer is one")


def _said(err: BaseException) -> str:
    return f"{type(err).__name__}: {err}"
