"""Checks of the data stage: everything that evaluations and mixtures will read is read once, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from nanochat.contract.contract import StageContext, StageError
from nanochat.data import core_bundle
from nanochat.planning.graph import CHECKED
from nanochat.tasks import learnable, own, registry
from nanochat.tasks.chat_file import ChatFile, own_path
from nanochat.tasks.source import TaskSource
from nanochat.tasks.use import OwnMixture, OwnTask


def check_core(ctx: StageContext, root: Path) -> None:
    """Read every line of the CORE bundle. Raises StageError naming what is missing or damaged, unless the recipe allows that."""
    found = core_bundle.problems(root) if ctx.spec.config.get(CHECKED, {}).get("core", True) else {}
    if not found:
        return
    if not allowed(ctx, "core"):
        hint = "complete the bundle, or set base_eval.allow_incomplete"
        raise StageError(core_bundle.told(found), code="core_bundle", hint=hint)
    for problem in found.values():
        _warn(ctx, problem)


def check_tasks(ctx: StageContext, source: TaskSource) -> None:
    """Make every problem of the tasks to be judged. Raises StageError naming the first that cannot be, unless the recipe allows it."""
    checked = ctx.spec.config.get(CHECKED, {})
    own_tasks = [OwnTask.model_validate(use) for use in checked.get("own", [])]
    for problem in _problems(list(map(str, checked.get("tasks", []))), own_tasks, source):
        if not allowed(ctx, "tasks"):
            raise problem
        _warn(ctx, str(problem))


def check_mixtures(ctx: StageContext, own: Mapping[str, Sequence[Path]], root: Path | None) -> None:
    """Raises StageError naming the first mixture, or file of one, of which nothing could be learned. `own` are the fetched files by URL."""
    for mixture in map(OwnMixture.model_validate, ctx.spec.config.get(CHECKED, {}).get("mixtures", [])):
        places = {use.place for use in mixture.files}
        files = {place: ChatFile.open(own[place][0] if place in own else own_path(place, root)) for place in places}
        for field, err in learnable.problems(mixture, files):
            raise StageError(f"{field}: {err}", code="nothing_to_learn", hint=err.hint)


def _problems(judged: list[str], own_tasks: list[OwnTask], source: TaskSource) -> Iterator[StageError]:
    checks = [partial(registry.check, name, source) for name in judged] + [partial(own.check, use, source) for use in own_tasks]
    for check in checks:
        try:
            check()
        except StageError as err:
            yield err


def allowed(ctx: StageContext, part: str) -> bool:
    """Whether the recipe lets a part of its evaluations be left out."""
    return bool(ctx.spec.config.get(CHECKED, {}).get("allow_incomplete", {}).get(part))


def _warn(ctx: StageContext, problem: str) -> None:
    ctx.events.emit("warning", code="evaluation_incomplete", message=f"left out of the evaluations: {problem}")
