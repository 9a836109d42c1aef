"""The report card as Markdown: the system, the summary, the time and cost, every stage, and the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.report import answers, cells, facts, sections
from nanochat.report.card import Report, StageCard
from nanochat.report.summary import TASKS

EXCERPT = 240  # characters of a text in a cell
# Control characters and those that turn the direction of what follows.
UNSEEN = dict.fromkeys(
    (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), "\N{REPLACEMENT CHARACTER}"
)


def render(report: Report) -> str:
    """The whole report."""
    parts = [
        f"# Report on {escape(report.name or report.run)}",
        escape(report.status),
        _header(report),
        "## Summary",
        _summary(report),
        "\n".join(f"- {escape(note.text)}" for note in report.notes),
        "## Time",
        _times(report),
        *[part for stage in report.begun for part in _section(stage)],
        "## Lineage",
        _lineage(report),
        "## Published figures",
        _published(report),
        "## Recipe",
        _settings(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(report: Report) -> str:
    return table(("", ""), [(key, escape(value)) for key, value in facts.system(report)], text_columns=2)


def _summary(report: Report) -> str:
    shown, times = facts.columns(report), facts.training_times(report)
    rows = [(row.name, *(_figure(row.values.get(c)) for c in shown)) for row in report.summary]
    rows.append(("Training wall-clock", *(times[c] for c in shown)))
    return table(("Metric", *shown), rows)


def _times(report: Report) -> str:
    rows = [(stage.title, cells.number("seconds", stage.seconds)) for stage in report.begun]
    rows.append(("**From the first start to the last end**", cells.number("seconds", report.total_seconds)))
    return table(("Stage", "Wall-clock"), rows) + (f"\n\n{facts.price(report.cost)}" if report.cost else "")


def _section(stage: StageCard) -> list[str]:
    """Scalars come first as one table, then records as tables, then samples."""
    found = sections.of(stage)
    parts = [f"## {stage.title}"]
    if stage.state != "done":
        parts.append(f"{stage.state.capitalize()}{': ' + escape(stage.why) if stage.why else '.'}")
    if found.facts:
        parts.append(table(("", ""), [(escape(label), escape(value)) for label, value in found.facts]))
    for grid in found.grids:
        rows = [[escape(cell) for cell in row] for row in grid.rows]
        parts.append(table([escape(h) for h in grid.header], rows, words=grid.words))
    return parts + (["### Samples", _samples(found.samples)] if found.samples else [])


def _samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """One row for each prompt with the model's text."""
    if "completion" not in samples[0]:
        rows = [(excerpt(str(s.get("prompt"))), excerpt(str(s.get("text")))) for s in samples]
        return table(("Prompt", "Continuation"), rows, text_columns=2)
    told = [
        (
            escape(str(TASKS.get(str(s.get("task")), s.get("task")))),
            excerpt(str(s.get("prompt"))),
            excerpt(_with_calls(str(s.get("completion")))),
            cells.number("", s.get("right")),
        )
        for s in samples
    ]
    return table(("Task", "Question", "Answer", "Right"), told, text_columns=4)


def _with_calls(answer: str) -> str:
    shown = {"text": "{}", "call": "[calls {}]", "result": "[→ {}]"}
    return " ".join(shown[part.kind].format(part.text.strip()) for part in answers.parts(answer))


def _lineage(report: Report) -> str:
    if not report.lineage:
        return "No artifact was recorded."
    rows = [(escape(row.what), f"`{row.sha256}`", cells.size(row.bytes)) for row in report.lineage]
    return table(("What", "SHA-256", "Size"), rows, text_columns=2)


def _published(report: Report) -> str:
    ours = facts.ours(report)
    rows = [("**This run**", ours.params, _figure(ours.core), _figure(ours.bpb), _figure(ours.chatcore), "")]
    rows += [
        (
            p.name,
            p.params,
            _figure(p.core),
            _figure(p.bpb),
            _figure(p.chatcore),
            "; ".join(filter(None, (p.hardware, p.source))),
        )
        for p in report.published
    ]
    header = ("Model", "Parameters", "CORE", "Bits per byte", "ChatCORE (SFT)", "Source")
    return table(header, rows) + "\n\nBits per byte compare only on the same text."


def _settings(report: Report) -> str:
    """List the settings in which this run differs from the d20 speedrun, whose values are the defaults."""
    if not report.settings:
        return "All settings are those of the d20 speedrun."
    rows = [(f"`{escape(s.name)}`", escape(s.value), escape(s.usual)) for s in report.settings]
    return table(("Setting", "This run", "d20 speedrun"), rows, text_columns=3)


def _figure(value: float | None) -> str:
    return cells.number("", float(value) if value is not None else None)


# -- cells --


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1, words: Sequence[bool] | None = None
) -> str:
    """Return a table whose first `text_columns` columns, or those that are `words`, are aligned left, and all others right."""
    left = words or [place < text_columns for place in range(len(header))]
    align = [":---" if is_left else "---:" for is_left in left]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


def excerpt(text: str) -> str:
    """The beginning of a text, escaped for a table cell."""
    return escape(cells.clipped(text, EXCERPT)) or cells.NONE


def escape(text: str) -> str:
    """Put a text on one line and escape it, so that it cannot break out of its table cell, load a picture or steer a terminal."""
    line = " ".join(text.split()).translate(UNSEEN).replace("\\", "\\\\")
    return line.replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`").replace("](", "]\\(")
