"""The figures of a stage as a page shows them: scalars, tables and samples. Both pages read this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nanochat.report import cells
from nanochat.report.card import StageCard
from nanochat.report.summary import TASKS, table

BARS = {"accuracy", "centered", "n", "rows", "baseline", "stderr", "skipped"}  # what a row of bars says
ELSEWHERE = ("samples", "machine")  # results that are not shown among the figures of a stage


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text. `words` says of each column whether it holds words, which align left, or figures."""

    header: list[str]
    rows: list[list[str]]
    words: list[bool]
    is_drawn: bool = False  # the page shows its figures as bars


@dataclass(slots=True)
class Section:
    """What a stage's results hold."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    grids: list[Grid] = field(default_factory=list)
    samples: list[Mapping[str, Any]] = field(default_factory=list)


def of(stage: StageCard) -> Section:
    """Split a stage's results into scalars, tables of records, and samples."""
    found = Section(samples=[s for s in stage.results.get("samples") or [] if isinstance(s, Mapping)])
    plain: dict[str, Any] = {"wall_clock_seconds": stage.seconds} if stage.seconds is not None else {}
    for key, value in stage.results.items():
        if key in ELSEWHERE:
            continue
        if key == "core" and isinstance(value, str):
            plain["CORE bundle"] = value
        elif key == "core" and isinstance(value, Mapping):
            plain |= _core_facts(value)
            found.grids += _named("Task", table(value.get("tasks")), drawn=True)
        elif isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values()):
            found.grids += _named(key, value, drawn=key == "tasks")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            found.grids.append(_records(value))
        else:
            plain[key] = value
    found.facts = [(cells.words(key), cells.number(key, value)) for key, value in plain.items()]
    return found


def _core_facts(core: Mapping[str, Any]) -> dict[str, Any]:
    label = "CORE (estimate)" if core.get("estimate") and core.get("core") is not None else "CORE"
    shown = ("core", "tasks", "missing", "partial", "estimate")
    lists = {f"CORE tasks {key}": core[key] for key in ("missing", "partial") if core.get(key)}
    return {label: core.get("core"), **lists, **{k: v for k, v in core.items() if k not in shown}}


def _named(title: str, records: Mapping[str, Any], *, drawn: bool = False) -> list[Grid]:
    rows = [{title: TASKS.get(name, name) if title == "tasks" else name, **figures} for name, figures in records.items()]
    if not rows:
        return []
    grid = _records(rows)
    keys = {key for figures in records.values() for key in figures}
    return [replace(grid, is_drawn=drawn and keys <= BARS)]


def _records(rows: Sequence[Mapping[str, Any]]) -> Grid:
    """A table of records. A column is there if any record has its key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    words = [isinstance(next((row[k] for row in rows if row.get(k) is not None), ""), str) for k in keys]
    return Grid([cells.words(k) for k in keys], [[cells.number(k, row.get(k)) for k in keys] for row in rows], words)
