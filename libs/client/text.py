"""Formats runs, stages and plans for the terminal: tables, progress bars, durations and numbers with units."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from client.models import FINISHED, Catalog, OtherFigures, Plan, Run, RunSummary, Stage, StageFigures

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

PIPED = 240  # columns
NARROW = 96  # columns; a narrower terminal gets fewer columns, so that no figure is cut off


def console() -> Console:
    """Standard output. What is piped has room for whole rows: half an id is of no use to a script."""
    return Console() if sys.stdout.isatty() or "COLUMNS" in os.environ else Console(width=PIPED)


@dataclass(frozen=True, slots=True)
class RunTable:
    """A run: a headline, one row per stage (status, bar, figures, times), then one line per failure."""

    run: Run
    catalog: Catalog

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        narrow = options.max_width < NARROW
        bar = max(8, min(24, options.max_width - (71 if narrow else 88)))
        table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0))
        for heading in ("stage", "status", "", "progress"):
            table.add_column(heading, no_wrap=True)
        columns = self.catalog.columns
        if narrow:  # the first and the last: how training goes and how fast
            columns = [*columns[:1], *columns[1:][-1:]]
        for heading in (*(metric.short for metric in columns), "time", "ETA"):
            table.add_column(heading, justify="right", no_wrap=True)
        for stage in self.run.stages:
            table.add_row(*_cells(stage, [metric.key for metric in columns], bar, narrow))
        run = self.run
        yield Text.assemble((run.id, "bold"), " ", run.name, "  ", status_styled(run.status), "  ", run.detail)
        yield table
        yield from (Text(line, style="red") for line in troubles(run))


def _cells(stage: Stage, keys: Sequence[str], bar: int, narrow: bool) -> Iterator[RenderableType]:
    progress, over = stage.progress, stage.status in FINISHED
    yield Text(stage.name + (f" #{len(stage.attempts)}" if len(stage.attempts) > 1 else ""))
    yield status_styled(stage.status)
    fraction = 1.0 if stage.status == "SUCCEEDED" else (progress.fraction if progress else 0.0)
    yield Text("") if stage.status in NOT_STARTED else ProgressBar(total=1.0, completed=fraction, width=bar)
    unit = "" if progress is None or narrow else f" {progress.unit}"
    yield Text("" if progress is None else f"{number(progress.done)}/{number(progress.total)}{unit}")
    for key in keys:
        yield Text(number(stage.latest[key]) if key in stage.latest else "")
    yield Text(duration(stage.started_at, stage.finished_at))
    yield Text("" if over or progress is None or progress.eta_s is None else seconds(progress.eta_s))


def runs_table(runs: Iterable[RunSummary]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("id", "name", "recipe", "status", "stages", "detail", "age", "took"):
        table.add_column(heading, no_wrap=heading != "detail")
    for run in runs:
        done, age = f"{run.stages_done}/{run.stages_total}", duration(run.created_at, None)
        took = duration(run.started_at, run.finished_at)
        table.add_row(run.id, run.name, run.recipe, status_styled(run.status), done, run.detail, age, took)
    return table


def plan_table(plan: Plan) -> Table:
    """One row per stage. A training stage also shows its length, its batch and its memory; any stage its time, if that is known."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stage", no_wrap=True)
    for heading in ("steps", "tokens", "FLOPs", "batch", "GiB", "tok/s", "hours", "$"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("from", no_wrap=True)
    rows = {s.stage: tuple(_figures(s)) for s in plan.figures.stages}
    rows |= {s.stage: ("",) * 6 + _cost(s) for s in plan.figures.others}
    for stage in plan.stages:
        table.add_row(stage.name, *rows.get(stage.name, ()))
    return table


def _figures(row: StageFigures) -> Iterator[str]:
    guess = "~" if row.estimated else ""
    for length in (number(row.steps), number(row.tokens), flops(row.flops)):
        yield guess + length
    yield f"{row.device_batch_size} x {row.accumulation}"
    yield "" if row.peak_gib is None else f"{row.peak_gib:.1f}{'' if row.fits else ' !'}"
    yield "" if row.tok_per_s is None else number(row.tok_per_s)
    yield from _cost(row, guess)


def _cost(row: StageFigures | OtherFigures, guess: str = "") -> tuple[str, str, str]:
    hours = "" if row.hours is None else f"{guess}{row.hours:.2f}"
    usd = "" if row.usd is None else f"{guess}{row.usd:.2f}"
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
    yield where + total + ("" if on.usd is None else f", ${on.usd:.2f}")


def troubles(run: Run) -> list[str]:
    """One line for each stage that failed or is waiting for a retry: its name, the reason and what to do."""
    return [
        f"{s.name}: {s.reason or s.status}{': ' + s.message if s.message else ''}"
        for s in run.stages
        if s.status in ("FAILED", "BACKOFF")
    ]


def status_text(run: Run) -> str:
    return f"{run.status} ({run.detail})" if run.detail else run.status


def status_styled(status: str) -> Text:
    return Text(f"{SYMBOLS.get(status, '?')} {status}", style=COLORS.get(status, "dim"))


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


def flops(value: float | None) -> str:
    """A number of floating-point operations in scientific notation, as papers print it: `3.92e19`. None becomes `?`."""
    if value is None:
        return "?"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"
