"""The report card as Markdown: the system, the summary, the time and cost, every stage, and the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from nanochat.report import answers, cells, sections
from nanochat.report.card import Cost, Report, StageCard
from nanochat.report.summary import COLUMNS, OPTIONAL, TASKS

EXCERPT = 240  # characters of a text in a cell


def render(report: Report) -> str:
    """The whole report."""
    ran = [stage for stage in report.stages if stage.state not in ("not reached", "left out")]
    parts = [
        f"# Report on {escape(report.name or report.run)}",
        escape(report.status),
        _header(report),
        "## Summary",
        _summary(report),
        "\n".join(f"- {escape(note.text)}" for note in report.notes),
        "## Time",
        _times(ran, report),
        *[part for stage in ran for part in _section(stage)],
        "## Lineage",
        _lineage(report),
        "## Published figures",
        _published(report),
        "## Recipe",
        _settings(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def columns(report: Report) -> list[str]:
    """The columns of the summary. One that a recipe may leave out is there only if it did not."""
    states = {stage.name: stage.state for stage in report.stages}
    return [c for c in COLUMNS if c not in OPTIONAL or states.get(COLUMNS[c][0]) not in ("left out", None)]


def header_facts(report: Report) -> list[tuple[str, str]]:
    """The system: recipe, model, hardware, versions and the amount of code."""
    base, machine = report.results("base_train"), report.machine
    model, tokenizer = report.recipe.get("model") or {}, report.recipe.get("tokenizer") or {}
    described = f": {report.recipe['description']}" if report.recipe.get("description") else ""
    trained = f"{base.get('world_size', 1)} x {base['device']}" if base.get("device") else cells.NONE
    code = report.code
    pinned = f", {code.dependencies} pinned packages" if code.dependencies else ""
    size = f"{code.characters:,} characters, {code.lines:,} lines, {code.files} files, about {code.tokens:,} tokens"
    versions = {"nanochat": code.version, **machine}
    parts = [str(machine[k]) for k in ("system", "cpu", "gpus", "memory") if machine.get(k)]
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    return [
        ("Run", report.run),
        ("Recipe", f"{report.recipe.get('name', cells.NONE)}{described}"),
        (
            "Model",
            f"depth {model.get('depth', '?')}, {cells.number('', base.get('params'))} parameters, "
            f"context {cells.number('', model.get('seq_len'))}, vocabulary {cells.number('', tokenizer.get('vocab_size'))}",
        ),
        ("Trained on", trained),
        ("Machine", ", ".join(parts) or cells.NONE),
        ("Versions", ", ".join(f"{k} {versions[k]}" for k in ("nanochat", "python", "torch", "cuda") if versions.get(k))),
        ("Code", f"{size}{pinned} ({code.of})"),
        ("Started", moment(min((s.started_at for s in report.stages if s.started_at), default=None))),
        ("Finished", moment(max((s.finished_at for s in report.stages if s.finished_at), default=None))),
    ]


def moment(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else cells.NONE


def price(cost: Cost) -> str:
    return f"At ${cost.usd_per_hour:,.2f} an hour for {cost.gpus} x {cost.gpu}: ${cost.usd:,.2f}."


def _header(report: Report) -> str:
    return table(("", ""), [(key, escape(value)) for key, value in header_facts(report)], text_columns=2)


def _summary(report: Report) -> str:
    shown = columns(report)
    rows = [(row.name, *(_figure(row.values.get(c)) for c in shown)) for row in report.summary]
    times = [stage.seconds if (stage := report.stage(COLUMNS[c][0])) else None for c in shown]
    rows.append(("Training wall-clock", *(cells.number("seconds", t) for t in times)))
    return table(("Metric", *shown), rows)


def _times(ran: Sequence[StageCard], report: Report) -> str:
    rows = [(stage.title, cells.number("seconds", stage.seconds)) for stage in ran]
    rows.append(("**From the first start to the last end**", cells.number("seconds", report.total_seconds)))
    return table(("Stage", "Wall-clock"), rows) + (f"\n\n{price(report.cost)}" if report.cost else "")


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
    core = next((row.values.get("BASE") for row in report.summary if row.name.startswith("CORE")), None)
    bpb = next((row.values.get("BASE") for row in report.summary if row.name.startswith("Bits per byte, text")), None)
    chat = next((row.values.get("SFT") for row in report.summary if row.name == "ChatCORE"), None)
    params = cells.short(report.results("base_train").get("params"))
    rows = [("**This run**", params, _figure(core), _figure(bpb), _figure(chat), "")]
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
    return escape(text if len(text) <= EXCERPT else text[:EXCERPT] + "…") or cells.NONE


def escape(text: str) -> str:
    """Put a text on one line and escape it, so that it cannot break out of its table cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
