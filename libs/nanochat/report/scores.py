"""The scores of a run for the page: headline figures, tables with bars, and published figures beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from nanochat.report import bars, cells, facts, summary
from nanochat.report.card import Report
from nanochat.report.summary import COLUMNS, TASKS, is_number, table

CORE_RANGE = (-0.1, 0.4)  # of a centered accuracy: an axis is at least as long


@dataclass(frozen=True, slots=True)
class Tile:
    """A headline figure."""

    title: str
    value: str
    note: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure with its bar. `first` begins a new group of rows."""

    name: str
    model: str
    bar: Markup
    value: str
    error: str
    chance: str
    problems: str
    rows: int = 1
    first: bool = True


@dataclass(frozen=True, slots=True)
class Bars:
    """A table of bars on one scale."""

    scale: bars.Scale
    rows: list[Row]


def tiles(report: Report) -> list[Tile]:
    """The figures by which a run is judged first; those that were not measured are left out."""
    by_name = {row.name: row for row in report.summary}
    found = []
    for name, column, note in (
        (summary.CORE, "BASE", "mean of 22 tasks, chance 0"),
        (summary.CORE_ESTIMATE, "BASE", "from a sample of each task"),
        (summary.CHATCORE_MEAN, "", "mean of six tasks, chance 0"),
        (summary.TEXT_BPB, "BASE", "validation text"),
    ):
        row = by_name.get(name)
        shown = (column if column else next(reversed(row.values))) if row else ""
        if row and shown in row.values:
            model = f"{shown}, " if not column else ""
            found.append(
                Tile(name, f"{row.values[shown]:.4f}", model + note, _pm(row.errors[shown]) if shown in row.errors else "")
            )
    base = report.results("base_train")
    if report.total_seconds is not None:
        found.append(Tile("Wall-clock", cells.duration(report.total_seconds), "first start to last end"))
    if report.cost:
        found.append(Tile("Cost", f"${report.cost.usd:,.2f}", f"{report.cost.gpus} × {report.cost.gpu}"))
    if is_number(base.get("tok_per_s")):
        mfu = f"MFU {base['mfu']:.1f} %" if is_number(base.get("mfu")) else "pretraining"
        found.append(Tile("Tokens per second", cells.short(base["tok_per_s"]), mfu))
    return found


def core(report: Report) -> Bars | None:
    """CORE by task: centered accuracies, on which chance is 0."""
    tasks = {
        name: table(figures) for name, figures in table(table(report.results("base_eval").get("core")).get("tasks")).items()
    }
    tasks = {name: f for name, f in tasks.items() if is_number(f.get("centered"))}
    if not tasks:
        return None
    scale = bars.Scale.over([f["centered"] for f in tasks.values()], at_least=CORE_RANGE)
    rows = [
        Row(
            name,
            "",
            bars.bar(scale, f["centered"], summary.centered_error(f), 0.0),
            f"{f['centered']:.3f}",
            _pm(summary.centered_error(f)),
            _chance(f),
            _problems(f),
        )
        for name, f in tasks.items()
    ]
    return Bars(scale, rows)


def chat(report: Report) -> Bars | None:
    """The chat tasks, each with one bar for every model that was judged."""
    judged = {
        column: {n: f for n, f in tasks.items() if is_number(table(f).get("accuracy"))}
        for column, (_, evaluated) in COLUMNS.items()
        if (tasks := table(report.results(evaluated).get("tasks")))
    }
    names = [*TASKS, *dict.fromkeys(n for tasks in judged.values() for n in tasks if n not in TASKS)]
    scale = bars.Scale.over([], at_least=(0.0, 1.0))
    rows: list[Row] = []
    for name in names:
        models = [column for column, tasks in judged.items() if name in tasks]
        for column in models:
            f = judged[column][name]
            e = summary.error(f)
            rows.append(
                Row(
                    TASKS.get(name, name),
                    column,
                    bars.bar(scale, f["accuracy"], e, summary.baseline(f) or None, column.lower()),
                    f"{f['accuracy']:.3f}",
                    _pm(e),
                    _chance(f),
                    _problems(f),
                    rows=len(models),
                    first=column == models[0],
                )
            )
    return Bars(scale, rows) if rows else None


@dataclass(frozen=True, slots=True)
class Reference:
    """A row of the table of published figures. `ours` is the run itself."""

    name: str
    params: str
    bar: Markup
    core: str
    bpb: str
    chatcore: str
    source: str
    error: str = ""
    ours: bool = False


@dataclass(frozen=True, slots=True)
class References:
    """Published figures beside ours, on one scale."""

    scale: bars.Scale
    rows: list[Reference]


def published(report: Report) -> References:
    """Published models and this run in the order of their CORE; others without one come last, this run without one first."""
    ours = facts.ours(report)
    value = ours.core
    known = [core for core in (value, *(p.core for p in report.published)) if core is not None]
    scale = bars.Scale.over(known, at_least=(0.0, 0.3))
    rows = [
        (
            value,
            Reference(
                "This run" + (" (estimate)" if ours.is_estimate else ""),
                ours.params,
                bars.bar(scale, value, ours.core_error) if value is not None else Markup(""),
                _core(value),
                _core(ours.bpb),
                _core(ours.chatcore),
                "",
                _pm(ours.core_error),
                ours=True,
            ),
        )
    ]
    for p in report.published:
        bar = bars.bar(scale, p.core, series="mid") if p.core is not None else Markup("")
        source = "; ".join(filter(None, (p.hardware, p.source)))
        rows.append((p.core, Reference(p.name, p.params, bar, _core(p.core), _core(p.bpb), _core(p.chatcore), source)))
    rows.sort(key=lambda row: (row[0] is None and not row[1].ours, -(row[0] or 0.0)))
    if value is None:
        rows.sort(key=lambda row: not row[1].ours)
    return References(scale, [row for _, row in rows])


def _core(value: float | None) -> str:
    return cells.NONE if value is None else f"{value:.4f}"


def _pm(error: float | None) -> str:
    return "" if error is None else f"± {error:.3f}"


def _chance(figures: dict[str, object]) -> str:
    found = summary.baseline(figures)
    return cells.NONE if found is None else f"{found:.3g}"


def _problems(figures: dict[str, object]) -> str:
    n, rows = figures.get("n"), figures.get("rows")
    if not isinstance(n, int):
        return cells.NONE
    return f"{n:,} of {rows:,}" if isinstance(rows, int) and rows > n else f"{n:,}"
