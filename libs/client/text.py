"""Formats runs, stages and plans for the terminal: tables, progress bars, durations and numbers with units."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from client.models import Catalog, Progress, Run, RunSummary, Stage
from client.plan_models import OtherFigures, Plan, StageFigures
from client.printable import clean
from client.sheet import Bar, Cell, Column, Sheet

# Every status has a symbol and a word as well as a colour, because some readers cannot tell the colours apart.
SYMBOLS = {
    "PENDING": "·",
    "QUEUED": "…",
    "STARTING": "▸",
    "RUNNING": "▶",
    "STOPPING": "◼",
    "BACKOFF": "↻",
    "PAUSED": "⏸",
    "SUCCEEDED": "✔",
    "FAILED": "✘",
    "CANCELLED": "◻",
}
COLORS = {
    "RUNNING": "cyan",
    "STARTING": "cyan",
    "SUCCEEDED": "green",
    "FAILED": "red",
    "BACKOFF": "yellow",
    "STOPPING": "yellow",
}
NOT_STARTED = frozenset({"PENDING", "QUEUED"})


@dataclass(frozen=True, slots=True)
class RunTable:
    """A run: a headline, one row per stage (status, bar, figures, times), then one line per failure."""

    run: Run
    catalog: Catalog

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        run = self.run
        whole = f"  {100 * run.fraction:.0f} %" + (f", {left} left" if (left := left_of(run)) else "")
        yield Text.assemble(
            (run.id, "bold"), " ", clean(run.name), "  ", status_styled(run.status), whole, "  ", clean(run.detail)
        )
        yield self.sheet()
        yield from (Text(line, style="red") for line in troubles(run))

    def sheet(self) -> Sheet:
        """One row for each stage."""
        metrics = self.catalog.columns
        figures = [Column(metric.short, right=True, drop=_drop(at, len(metrics))) for at, metric in enumerate(metrics)]
        times = (Column("time", right=True, drop=1), Column("ETA", right=True, drop=2))
        sheet = Sheet("stage", "status", Column("", drop=8), Column("progress", drop=3), *figures, *times)
        for stage in self.run.stages:
            sheet.add(*_cells(stage, [metric.key for metric in metrics]))
        return sheet


def _drop(at: int, count: int) -> int:
    """Of the figures the first and the last stay longest: how training goes and how fast."""
    return 5 if at == 0 else 6 if at == count - 1 else 9


def _cells(stage: Stage, keys: Sequence[str]) -> Iterator[Cell]:
    progress = stage.progress
    yield stage.name + (f" #{len(stage.attempts)}" if len(stage.attempts) > 1 else "")
    yield status_styled(stage.status)
    fraction = 1.0 if stage.status == "SUCCEEDED" else (progress.fraction if progress else 0.0)
    yield "" if stage.status in NOT_STARTED else Bar(fraction)
    yield "" if progress is None else done_of(progress)
    for key in keys:
        yield number(stage.latest[key]) if key in stage.latest else ""
    yield duration(stage.started_at, stage.finished_at)
    yield time_left(stage)


def done_of(progress: Progress) -> str:
    """`40/100 step`; without the total while it is unknown."""
    total = f"/{number(progress.total)}" if progress.total else ""
    return f"{number(progress.done)}{total} {progress.unit}".rstrip()


def time_left(stage: Stage) -> str:
    """How long the stage takes from now on; empty while nobody knows: before its first step, and while it is not at work."""
    progress = stage.progress
    if progress is None or not progress.done or not progress.eta_s or stage.status != "RUNNING":
        return ""
    return seconds(progress.eta_s)


def facts(run: Run) -> Iterator[str]:
    """What there is to know of a run beside its stages, one line each."""
    times = [("created", run.created_at), ("started", run.started_at), ("finished", run.finished_at)]
    yield f"recipe {run.recipe}" + "".join(f", {what} {when(at)}" for what, at in times if at is not None)
    budget = run.budget
    limits = (budget.max_usd, budget.max_hours)
    used = "an unknown sum" if budget.used_usd is None else f"${budget.used_usd:.2f}"
    of_usd, of_hours = (f" of ${limits[0]:.2f}" if limits[0] else ""), (f" of {limits[1]:g} h" if limits[1] else "")
    yield f"used {used}{of_usd}, {budget.used_hours:.2f} h{of_hours}, {budget.used_gpu_hours:.2f} GPU hours; priority {run.priority}"
    if run.forked_from:
        yield f"forked from {run.forked_from}"
    if run.labels:
        yield f"labels {', '.join(run.labels)}"
    if run.notes:
        yield f"notes {run.notes}"


def runs_table(runs: Iterable[RunSummary]) -> Sheet:
    sheet = Sheet(
        "id",
        Column("name", wrap=True),
        Column("recipe", drop=9),
        "status",
        Column("done", right=True, drop=1),
        Column("time left", right=True, drop=3),
        Column("stage", drop=7),
        Column("tok/s", right=True, drop=8),
        Column("bits/byte", right=True, drop=4),
        Column("CORE", right=True, drop=6),
        Column("$", right=True, drop=5),
        Column("why", drop=10, wrap=True),
        Column("age", right=True, drop=2),
    )
    for run in runs:
        figures, stage = run.figures, "" if run.current is None or run.is_finished else run.current.name
        usd = dollars(run.budget.used_usd)
        measured = (figures.tok_per_s if stage else None, figures.val_bpb, figures.core)
        speed, bpb, core = map(known, measured)
        done, age = f"{100 * run.fraction:.0f} %", duration(run.created_at, None)
        why = run.why or run.detail
        sheet.add(
            run.id, run.name, run.recipe, status_styled(run.status), done, left_of(run), stage, speed, bpb, core, usd, why, age
        )
    return sheet


def left_of(run: Run | RunSummary) -> str:
    """How long the whole run takes from now on; empty while nobody knows, and once it has ended."""
    return seconds(run.eta_s) if run.eta_s and not run.is_finished else ""


def plan_table(plan: Plan) -> Sheet:
    """One row per stage. A training stage also shows its length, its batch and its memory; any stage its time, if that is known."""
    headings = (("steps", 0), ("tokens", 5), ("FLOPs", 8), ("batch", 7), ("GiB", 4), ("tok/s", 6), ("hours", 0), ("$", 0))
    sheet = Sheet("stage", *(Column(heading, right=True, drop=drop) for heading, drop in headings), Column("from", drop=9))
    rows = {s.stage: tuple(_figures(s)) for s in plan.figures.stages}
    rows |= {s.stage: ("",) * 6 + _cost(s) for s in plan.figures.others}
    for stage in plan.stages:
        sheet.add(stage.name, *rows.get(stage.name, ("",) * 9))
    return sheet


def _figures(row: StageFigures) -> Iterator[str]:
    guess = "~" if row.estimated else ""
    for length in (number(row.steps), number(row.tokens), flops(row.flops)):
        yield guess + length
    yield f"{row.device_batch_size} x {row.accumulation}"
    yield "" if row.peak_gib is None else f"{row.peak_gib:.1f}{'' if row.fits else ' !'}"
    yield known(row.tok_per_s)
    yield from _cost(row, guess)


def _cost(row: StageFigures | OtherFigures, guess: str = "") -> tuple[str, str, str]:
    hours = "" if row.hours is None else f"{guess}{row.hours:.2f}"
    usd = "" if row.hours is None else dollars(row.usd) if row.usd is None else f"{guess}{dollars(row.usd)}"
    return hours, usd, row.source if row.hours is not None else ""


def plan_summary(plan: Plan) -> Iterator[str]:
    """The lines below the table: size of the model, hardware assumed, total time and price."""
    on = plan.figures
    yield f"{number(on.params)} parameters, {flops(on.flops_per_token)} FLOPs per token; batch: rows per GPU x micro-steps per step"
    known = [f"{on.gpu_memory_gib:.1f} GiB"] if on.gpu_memory_gib else []
    if on.peak_tflops and on.mfu:
        known.append(f"{on.peak_tflops:g} TFLOPS at {100 * on.mfu:.0f} % MFU")
    if on.usd_per_hour is not None:
        known.append(f"${on.usd_per_hour:.2f}/h each")
    where = (
        f"{on.world_size} x {on.gpu or 'GPU'} ({', '.join(known)})"
        if known
        else f"{on.world_size} process(es) on hardware of unknown speed"
    )
    total = "" if on.hours is None else f": {on.hours:.2f} h"
    yield where + total + cost_of(on.hours, on.usd)


def troubles(run: Run) -> list[str]:
    """One line for each stage that failed or is waiting for a retry: its name, the reason and what to do."""
    return [
        clean(f"{s.name}: {s.reason or s.status}{': ' + s.message if s.message else ''}")
        for s in run.stages
        if s.status in ("FAILED", "BACKOFF")
    ]


def status_text(run: Run) -> str:
    return f"{run.status} ({run.detail})" if run.detail else run.status


def status_styled(status: str) -> Text:
    return Text(f"{SYMBOLS.get(status, '?')} {status}", style=COLORS.get(status, "dim"))


def when(at: datetime | None) -> str:
    """Date and time where the reader is. Only UTC is named: it is what --utc asks for, and the time of many servers."""
    if at is None:
        return ""
    local = at.astimezone()
    return f"{local:%Y-%m-%d %H:%M}" + (" UTC" if local.tzname() == "UTC" else "")


def duration(start: datetime | None, end: datetime | None) -> str:
    """The time from `start` to `end`, or to now if there is no end yet. Empty if there is no start yet."""
    if start is None:
        return ""
    return seconds(((end or datetime.now(UTC)) - start).total_seconds())


def seconds(s: float) -> str:
    """`35s`, `4m07s`, `3h35m` or `2d07h`. The seconds are rounded before they are split, so none reads `60s` or `1m60s`."""
    whole = max(0, round(s))
    minutes, rest = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    if whole < 60:
        return f"{whole}s"
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{hours}h{minutes_left:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"


def number(value: float | str | None) -> str:
    """A count or a measured value: up to four digits below 10,000, then three digits with k, M, B (10^9) or T (10^12).

    A string, such as `nan`, is returned unchanged. None becomes `?`.
    """
    if value is None:
        return "?"
    if isinstance(value, str) or not math.isfinite(value):
        return str(value)
    if abs(value) < 9999.5:
        return str(int(value)) if float(value).is_integer() else f"{value:.4g}"
    for size, suffix in ((1e3, "k"), (1e6, "M"), (1e9, "B"), (1e12, "T")):
        if abs(value / size) < 999.5:  # from there on, three digits would round to 1e+03
            return f"{value / size:.3g}{suffix}"
    return flops(value)


def known(value: float | None) -> str:
    """As `number`, but empty if there is no value: for a cell of a table."""
    return "" if value is None else number(value)


def dollars(value: float | None) -> str:
    """A cost without its sign, for a cell of a table. None, the cost of hardware without a known price, becomes `?`."""
    return "?" if value is None else f"{value:.2f}"


def cost_of(hours: float | None, usd: float | None) -> str:
    """The end of a line about a plan: what its hours cost. Empty where the hours are unknown."""
    return "" if hours is None else ", at an unknown price" if usd is None else f", ${usd:.2f}"


def flops(value: float | None) -> str:
    """A number of floating-point operations in scientific notation, as papers print it: `3.92e19`. None becomes `?`."""
    if value is None:
        return "?"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"
