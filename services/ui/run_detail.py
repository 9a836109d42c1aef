"""The selected run as HTML: its headline, the table of its stages, the end of its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from client.models import FINISHED, Catalog, LogLine, Run, Stage
from client.text import NOT_STARTED, duration, number, seconds
from services.ui.html import render

EXPLAINED = frozenset({"FAILED", "BACKOFF", "STOPPING", "CANCELLED"})


def headline(run: Run, catalog: Catalog) -> str:
    """Name, status and newest figures of a run and, when it failed, why."""
    facts = [
        ("stages done", f"{sum(s.status == 'SUCCEEDED' for s in run.stages)} of {len(run.stages)}"),
        ("took" if run.is_finished else "running for", duration(run.started_at, run.finished_at)),
        *_figures(run, catalog),
    ]
    detail = "" if run.status == "FAILED" else run.detail  # the failures say it in full
    return render("run_headline", run=run, detail=detail, facts=facts, failures=_failures(run))


def _figures(run: Run, catalog: Catalog) -> list[tuple[str, str]]:
    """The newest figures of the last stage that has trained; empty for a figure that it has not reported."""
    training = {stage.name for stage in catalog.stages if stage.trains}
    trained = [s for s in run.stages if s.name in training and s.latest]
    if not trained:
        return []
    latest = trained[-1].latest
    eta = next((s.progress.eta_s for s in run.stages if s.status == "RUNNING" and s.progress), None)
    return [
        *((metric.short, number(latest[metric.key]) if metric.key in latest else "") for metric in catalog.columns),
        ("ETA of stage", seconds(eta) if eta is not None else ""),
    ]


def _failures(run: Run) -> str:
    """A line for each failed stage: its name, the reason and its own message."""
    return "\n".join(f"{s.name} failed: {_why(s)}" for s in run.stages if s.status == "FAILED")


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage in the table. `fraction` is None and every text is empty where there is nothing to show."""

    stage: Stage
    history: str
    fraction: float | None
    steps: str
    figures: Sequence[str]
    why: str


def stage_table(run: Run, catalog: Catalog) -> str:
    headings = [*(_capitalized(metric.short) for metric in catalog.columns), "Time"]
    return render("stage_table", headings=headings, rows=[_line(s, catalog) for s in run.stages])


def _line(stage: Stage, catalog: Catalog) -> StageLine:
    return StageLine(
        stage=stage,
        history=_history(stage) if len(stage.attempts) > 1 else "",
        fraction=_fraction(stage),
        steps=_steps(stage),
        figures=[
            *(number(stage.latest[m.key]) if m.key in stage.latest else "" for m in catalog.columns),
            duration(stage.started_at, stage.finished_at),
        ],
        why=_why(stage) if stage.status in EXPLAINED else "",
    )


def _fraction(stage: Stage) -> float | None:
    if stage.status in NOT_STARTED:
        return None
    if stage.status == "SUCCEEDED":
        return 1.0
    return stage.progress.fraction if stage.progress else 0.0


def _steps(stage: Stage) -> str:
    """How far the stage is in its own unit: `30 / 60 steps · 2m10s left · note`."""
    progress = stage.progress
    if progress is None or stage.status in NOT_STARTED:
        return ""
    total = f" / {number(progress.total)}" if progress.total else ""
    eta = f" · {seconds(progress.eta_s)} left" if progress.eta_s is not None and stage.status not in FINISHED else ""
    note = f" · {progress.note}" if progress.note else ""
    return f"{number(progress.done)}{total} {_plural(progress.unit)}{eta}{note}"


def _plural(unit: str) -> str:
    return unit if not unit or unit.endswith("s") else f"{unit}{'es' if unit.endswith('ch') else 's'}"


def _history(stage: Stage) -> str:
    """A line for each attempt: how it ended and the step it resumed from."""
    return "\n".join(
        f"attempt {a.no}: {a.status}{f' ({a.reason})' if a.reason else ''}"
        + (f", resumed from step {a.resumed_from_step}" if a.resumed_from_step is not None else "")
        for a in stage.attempts
    )


def _capitalized(label: str) -> str:
    return label[:1].upper() + label[1:]


def _why(stage: Stage) -> str:
    return ": ".join(text for text in (stage.reason, stage.message) if text)


def log_lines(lines: Sequence[LogLine]) -> str:
    return render("log", lines=lines)
