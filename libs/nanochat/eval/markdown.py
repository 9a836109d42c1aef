"""Write figures as Markdown: readable numbers, tables, and excerpts of generated text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from nanochat.planning import metrics

NONE = "–"
EXCERPT = 240  # characters of a text in a cell
# Figures in a stage's results that are not metrics of a step.
LABELS = {
    "wall_clock_seconds": "wall-clock",
    "train_seconds": "training time",
    "bpb": "bits per byte",
    "params": "parameters",
    "flops_per_token": "FLOPs per token",
    "world_size": "processes",
    "chatcore": "ChatCORE",
    "rows_measured": "conversations measured",
    "rows_longer": "of these longer than the context, cut to it",
    "pass_at_8": "pass@8",
    "pass_at_8_before": "pass@8 before training",
}
MAX_ITEMS = 8  # of a longer list, only the number of items is shown


def number(key: str, value: Any) -> str:
    """Format a value of any JSON type for a table cell. A number whose `key` ends with "seconds" is shown as a duration."""
    if value is None or value == "":
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and key.endswith("seconds"):
        return duration(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, Mapping | list | tuple) and len(value) > MAX_ITEMS:
        return f"{len(value)} entries"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k)} {number(k, v)}" for k, v in value.items()) or NONE
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(number(key, v) for v in value) or NONE
    return escape(str(value))


def duration(seconds: float) -> str:
    """Format a duration, such as `3h35m`, `4m07s` or `12.3s`. It is rounded before it is split, so none reads `60.0s` or `60m00s`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}h{minutes:02d}m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> str:
    """Return a table whose first `text_columns` columns are aligned left, and all others right."""
    align = [":---"] * text_columns + ["---:"] * (len(header) - text_columns)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


def facts(figures: Mapping[str, Any]) -> str:
    """Return a table with one row for each figure."""
    return table(("", ""), [(_words(key), number(key, value)) for key, value in figures.items()])


def records(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of records, all of which have the same keys."""
    keys = list(rows[0])
    text_columns = max(1, next((i for i, k in enumerate(keys) if not isinstance(rows[0][k], str)), len(keys)))
    cells = [[number(k, row.get(k)) for k in keys] for row in rows]
    return table([_words(k) for k in keys], cells, text_columns=text_columns)


def excerpt(text: str) -> str:
    """The beginning of a text, escaped for a table cell."""
    return escape(text if len(text) <= EXCERPT else text[:EXCERPT] + "…") or NONE


def escape(text: str) -> str:
    """Put a text on one line and escape it, so that it cannot break out of its table cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _float(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e9):
        return f"{value:.3e}"
    return f"{value:,.1f}" if size >= 1000 else f"{value:.4f}"


def _words(key: str) -> str:
    return LABELS.get(key) or metrics.label(key)
