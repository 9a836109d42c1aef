"""The figures of a run at a glance: one row a figure, one column for each model that the run trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from nanochat.planning.graph import STAGES, evaluation_of
from nanochat.report.card import SummaryRow
from nanochat.tasks import catalog

Figures = Mapping[str, Any]

TASKS = {task.name: task.title for task in catalog.TASKS if task.judge}
# Tasks of ChatCORE and the accuracy of guessing on each.
CHATCORE = {task.name: task.baseline for task in catalog.TASKS if task.in_chatcore}
# Columns of the summary: the stage that trained the model, and the one that evaluated it.
COLUMNS = {
    trained.trains.upper(): (trained.name, evaluated.name)
    for trained in STAGES
    if trained.trains and (evaluated := evaluation_of(trained))
}
# Rows that both pages pick out.
CORE, CORE_ESTIMATE, CHATCORE_MEAN = "CORE", "CORE (estimate)", "ChatCORE"
# Bits per byte on the text of pretraining and on conversations do not compare, so each has a row of its own.
TEXT_BPB = "Bits per byte, text"
CHAT_BPB = "Bits per byte, conversations"


def rows(results: Mapping[str, Figures]) -> list[SummaryRow]:
    """The rows, from the results of the stages by name. Figures that were not measured are absent."""
    evaluated = {column: results.get(names[1], {}) for column, names in COLUMNS.items()}
    trained = {column: results.get(names[0], {}) for column, names in COLUMNS.items()}
    core, bpb = table(evaluated["BASE"].get("core")), table(evaluated["BASE"].get("bpb"))
    text_bpb = bpb.get("val") if bpb.get("val") is not None else trained["BASE"].get("val_bpb")
    found = [
        _row(CORE_ESTIMATE if core.get("estimate") else CORE, {"BASE": core.get("core")}, {"BASE": core_error(core)}),
        _row(TEXT_BPB, {"BASE": text_bpb}),
        _row(CHAT_BPB, {c: figures.get("val_bpb") for c, figures in trained.items() if c != "BASE"}),
        _row("Validation loss", {c: figures.get("val_loss") for c, figures in trained.items()}),
    ]
    judged = {c: table(figures.get("tasks")) for c, figures in evaluated.items()}
    titles = TASKS | {name: name for tasks in judged.values() for name in tasks if name not in TASKS}
    for task, title in titles.items():
        figures = {c: table(tasks.get(task)) for c, tasks in judged.items()}
        found.append(_row(title, {c: f.get("accuracy") for c, f in figures.items()}, {c: error(f) for c, f in figures.items()}))
    found.append(
        _row(
            CHATCORE_MEAN,
            {c: figures.get("chatcore") for c, figures in evaluated.items()},
            {c: chatcore_error(judged[c]) for c in evaluated},
        )
    )
    found.append(_row("ChatCORE without SpellingBee", {c: figures.get("chatcore_5") for c, figures in evaluated.items()}))
    return [row for row in found if row.values]


def _row(name: str, values: Mapping[str, Any], errors: Mapping[str, float | None] | None = None) -> SummaryRow:
    kept = {column: float(value) for column, value in values.items() if is_number(value)}
    return SummaryRow(
        name=name,
        values=kept,
        errors={c: e for c, e in (errors or {}).items() if c in kept and e is not None},
    )


# -- standard errors --


def error(task: Figures) -> float | None:
    """The standard error of a task's accuracy: as the stage measured it, otherwise that of a proportion, sqrt(p (1 - p) / n).

    None where all answers are right or all wrong: the formula gives 0 then, which says nothing.
    """
    measured = task.get("stderr")
    if is_number(measured):
        return float(measured) or None
    accuracy, n = task.get("accuracy"), task.get("n")
    if not is_number(accuracy) or not isinstance(n, int) or n < 2 or not 0 <= accuracy <= 1:
        return None
    return math.sqrt(accuracy * (1 - accuracy) / n) or None


def baseline(task: Figures) -> float | None:
    """The accuracy of guessing, which a centered accuracy implies unless all answers are right."""
    known = task.get("baseline")
    if is_number(known):
        return float(known)
    accuracy, centered = task.get("accuracy"), task.get("centered")
    if not is_number(accuracy) or not is_number(centered) or centered == 1:
        return None
    return min(max((accuracy - centered) / (1 - centered), 0.0), 0.99)


def centered_error(task: Figures) -> float | None:
    """The standard error of a centered accuracy."""
    found = error(task)
    return None if found is None else found / (1 - (baseline(task) or 0.0))


def core_error(core: Figures) -> float | None:
    """The standard error of CORE, as the stage measured it or from those of its tasks."""
    measured = core.get("stderr")
    return (
        (float(measured) or None)
        if is_number(measured)
        else _of_mean([centered_error(table(task)) for task in table(core.get("tasks")).values()])
    )


def chatcore_error(tasks: Figures) -> float | None:
    """The standard error of ChatCORE."""
    errors = [error(table(tasks.get(name))) for name in CHATCORE]
    return _of_mean([None if e is None else e / (1 - guess) for e, guess in zip(errors, CHATCORE.values(), strict=True)])


def _of_mean(errors: list[float | None]) -> float | None:
    """That of a mean over tasks, whose errors are independent. A task without one adds nothing."""
    return math.sqrt(sum(e * e for e in errors if e is not None)) / len(errors) or None if errors else None


# -- results are JSON of any form: an older or a later stage may have written them --


def table(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
