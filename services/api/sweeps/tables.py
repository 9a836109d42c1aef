"""The table and the curves of a sweep as CSV (RFC 4180), for clients that send `Accept: text/csv`.

A text that a spreadsheet would take for a formula has an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import Request, Response

from controlplane.sweep_schemas import SweepCurvesView, SweepRunView, SweepView

CSV = "text/csv"
Table = tuple[Sequence[str], Iterable[Sequence[Any]]]

FORMULA = ("=", "+", "-", "@")
_BEFORE = ("no", "run_id", "name", "status", "stopped_early")
_AFTER = ("best", "last", "step", "tokens", "hours", "gpu_hours", "usd")


def wants_csv(request: Request) -> bool:
    """Whether the client asks for CSV and not for JSON."""
    return CSV in request.headers.get("accept", "")


def declaration(what: str) -> dict[str, Any]:
    """What an endpoint declares beside its JSON."""
    return {
        "description": f"Successful Response; {what} as CSV with `Accept: {CSV}`",
        "content": {CSV: {"schema": {"type": "string"}}},
    }


def answer(table: Table) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    heading, rows = table
    writer.writerow(heading)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return Response(text.getvalue(), media_type=CSV)


def runs_table(sweep: SweepView) -> Table:
    """One row for each run, with a column for each field that some run changes."""
    fields = list(dict.fromkeys(path for run in sweep.items for path in run.overrides))

    def row(run: SweepRunView) -> list[Any]:
        changed = [run.overrides.get(path, "") for path in fields]
        return [getattr(run, name) for name in _BEFORE] + changed + [getattr(run, name) for name in _AFTER]

    return [*_BEFORE, *fields, *_AFTER], [row(run) for run in sweep.items]


def points_table(curves: SweepCurvesView) -> Table:
    """One row for each point of each run."""
    figures = ("step", "tokens", "gpu_hours", "t", "last", "min", "max")
    rows = [
        [run.no, run.run_id, run.name, curves.metric, *(getattr(point, name) for name in figures)]
        for run in curves.series
        for point in run.points
    ]
    return ["no", "run_id", "name", "metric", *figures], rows


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return json.dumps(value) if isinstance(value, dict | list | bool) else value
