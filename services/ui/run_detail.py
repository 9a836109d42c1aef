"""One run as HTML: its headline, the table of stages, the last lines it printed."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from client.models import FINISHED, LogLine, Run, Stage
from client.text import NOT_STARTED, duration, number, seconds
from services.ui.words import ago, alert, bar, chip

COLUMNS = 7


def headline(run: Run) -> str:
    facts = [
        ("stages done", f"{sum(s.status == 'SUCCEEDED' for s in run.stages)} of {len(run.stages)}"),
        ("took" if run.is_finished else "running for", duration(run.started_at, run.finished_at)),
        *_figures(run),
    ]
    detail = "" if run.status == "FAILED" else run.detail or ""  # why it failed is told by `troubles`, in full
    cells = "".join(f"<div><b>{escape(value)}</b><span>{name}</span></div>" for name, value in facts if value)
    return (
        f'<div class="nc-run-head"><h2>{escape(run.name)}</h2>{chip(run.status)}<span class="nc-dim">{escape(detail)}</span></div>'
        f'<div class="nc-dim">recipe <code>{escape(run.recipe)}</code> · <code>{escape(run.id)}</code> · submitted {ago(run.created_at)}</div>'
        f'<div class="nc-facts">{cells}</div>'
    )


def _figures(run: Run) -> list[tuple[str, str]]:
    """The newest figures of the stage that trained last, as far as it has told them."""
    trained = [s for s in run.stages if "loss" in s.latest or "val_bpb" in s.latest]
    if not trained:
        return []
    latest = trained[-1].latest
    eta = next((s.progress.eta_s for s in run.stages if s.status == "RUNNING" and s.progress), None)
    return [
        ("loss", number(latest["loss"]) if "loss" in latest else ""),
        ("val bpb", number(latest["val_bpb"]) if "val_bpb" in latest else ""),
        ("tokens/s", number(latest["tok_per_s"]) if "tok_per_s" in latest else ""),
        ("ETA of stage", seconds(eta) if eta is not None else ""),
    ]


def stage_table(run: Run) -> str:
    head = "<th>Stage</th><th>Status</th><th>Progress</th>" + "".join(
        f'<th class="num">{h}</th>' for h in ("Loss", "Val bpb", "Tokens/s", "Time")
    )
    rows = "".join(_stage(s) for s in run.stages)
    return f'<div class="nc-card"><table class="nc-table"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _stage(stage: Stage) -> str:
    attempts = len(stage.attempts)
    again = f' <span class="nc-dim" title="{escape(_history(stage))}">attempt {attempts}</span>' if attempts > 1 else ""
    figures = "".join(
        f'<td class="num">{escape(number(stage.latest[k])) if k in stage.latest else ""}</td>'
        for k in ("loss", "val_bpb", "tok_per_s")
    )
    row = (
        f'<tr data-stage="{escape(stage.name)}" data-status="{escape(stage.status)}"><td><b>{escape(stage.name)}</b>{again}</td>'
        f"<td>{chip(stage.status)}</td><td>{_progress(stage)}</td>{figures}"
        f'<td class="num">{duration(stage.started_at, stage.finished_at)}</td></tr>'
    )
    if not stage.message and not stage.reason:
        return row
    if stage.status not in ("FAILED", "BACKOFF", "STOPPING", "CANCELLED"):
        return row
    why = ": ".join(t for t in (stage.reason, stage.message) if t)
    bad = " bad" if stage.status == "FAILED" else ""
    return row + f'<tr><td class="why{bad}" colspan="{COLUMNS}">↳ {escape(why)}</td></tr>'


def _progress(stage: Stage) -> str:
    if stage.status in NOT_STARTED:
        return ""
    progress = stage.progress
    fraction = 1.0 if stage.status == "SUCCEEDED" else (progress.fraction if progress else 0.0)
    if progress is None:
        return bar(fraction, stage.status)
    total = f" / {number(progress.total)}" if progress.total else ""
    eta = f" · {seconds(progress.eta_s)} left" if progress.eta_s is not None and stage.status not in FINISHED else ""
    note = f" · {progress.note}" if progress.note else ""
    return (
        bar(fraction, stage.status)
        + f'<div class="nc-steps">{escape(f"{number(progress.done)}{total} {_plural(progress.unit)}{eta}{note}")}</div>'
    )


def _plural(unit: str) -> str:
    return unit if not unit or unit.endswith("s") else f"{unit}{'es' if unit.endswith('ch') else 's'}"


def _history(stage: Stage) -> str:
    return "\n".join(
        f"attempt {a.no}: {a.status}{f' ({a.reason})' if a.reason else ''}"
        + (f", resumed from step {a.resumed_from_step}" if a.resumed_from_step is not None else "")
        for a in stage.attempts
    )


def troubles(run: Run) -> str:
    """Why the run failed, in the stage's own words."""
    failed = [
        f"{s.name} failed: {': '.join(t for t in (s.reason, s.message) if t)}" for s in run.stages if s.status == "FAILED"
    ]
    return alert("\n".join(failed), bad=True)


def log_lines(lines: Sequence[LogLine]) -> str:
    if not lines:
        return '<div class="nc-log"><span class="src">nothing printed yet</span></div>'
    text = "\n".join(f'<span class="src">{escape(line.stage):>14} │</span> {escape(line.line)}' for line in lines)
    return f'<div class="nc-log" tabindex="0">{text}</div>'
