"""The command for the curves of a run: metrics."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from client import cli_base, complete
from client.cli_base import Json, RunArg, connect, emit, out, require_stage, show, warn
from client.cli_options import StageOption
from client.models import Catalog, MetricSeries
from client.sheet import Column, Sheet
from client.spark import sparkline
from client.text import known, number

WIDE, NARROW = 30, 16  # characters of a curve, on a terminal of 100 columns or more and on a smaller one
POINTS = 500


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.RUNS, metrics)


def metrics(
    run_id: RunArg,
    stage: StageOption = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", "-k", metavar="METRIC", help="only this metric, such as loss; repeat it", autocompletion=complete.metrics
        ),
    ] = None,
    from_step: Annotated[
        int | None, typer.Option(min=0, metavar="STEP", help="only from this step on, in finer buckets")
    ] = None,
    to_step: Annotated[int | None, typer.Option(min=0, metavar="STEP", help="only up to this step")] = None,
    points: Annotated[
        int, typer.Option(min=2, max=2000, help="at most so many points of each curve, with --csv and --json")
    ] = POINTS,
    as_csv: Annotated[bool, typer.Option("--csv", help="print the points as CSV")] = False,
    as_json: Json = False,
) -> None:
    """Show the newest value of every metric of a run, and its curve."""
    with connect() as client:
        series = client.metrics(run_id, stage, key, points, from_step=from_step, to_step=to_step)
        if not series:
            require_stage(client, run_id, stage)
        catalog = client.catalog()
    if as_json:
        emit(series)
    elif as_csv:
        _csv(series)
    elif series:
        show(_sheet(series, catalog))
    else:
        warn(_nothing(named=bool(key), ranged=from_step is not None or to_step is not None))


def _nothing(*, named: bool, ranged: bool) -> str:
    if ranged:
        return "No metrics at these steps."
    return "No metrics of that name." if named else "No metrics yet: they come with the first steps of training."


def _sheet(series: Sequence[MetricSeries], catalog: Catalog) -> Sheet:
    units = {metric.key: metric.unit for metric in catalog.metrics}
    width = WIDE if not out.is_terminal or out.width >= 100 else NARROW
    sheet = Sheet(
        Column("stage", drop=1 if len({one.stage for one in series}) == 1 else 0),
        "metric",
        Column("newest", right=True),
        Column("step", right=True, drop=2),
        Column("least", right=True, drop=4),
        Column("greatest", right=True, drop=4),
        Column("unit", drop=0, wrap=True),
        Column("curve", drop=3),
    )
    for one in series:
        if not one.points:
            continue
        last = one.points[-1]
        low = min((point.min for point in one.points if point.min is not None), default=None)
        high = max((point.max for point in one.points if point.max is not None), default=None)
        newest = "not finite" if last.last is None else number(last.last)
        curve = sparkline([point.last for point in one.points], width)
        sheet.add(one.stage, one.key, newest, str(last.step), known(low), known(high), units.get(one.key, ""), curve)
    return sheet


def _csv(series: Sequence[MetricSeries]) -> None:
    """One row for each bucket of a curve. `time` is in Unix seconds; a value that is not finite is empty, and `nonfinite` counts them."""
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(["stage", "metric", "step", "time", "min", "max", "last", "nonfinite"])
    for one in series:
        rows.writerows([one.stage, one.key, p.step, p.t, p.min, p.max, p.last, p.nonfinite] for p in one.points)
