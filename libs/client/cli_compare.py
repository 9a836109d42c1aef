"""The command `compare`: one run with its plan, or up to ten runs with each other: cost, scores and configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from client import cli_base, complete
from client.cli_base import Json, connect, emit, say, show
from client.client import Client
from client.errors import ApiError
from client.models import Run
from client.plan_models import Comparison
from client.sheet import Column, Sheet
from client.text import dollars, duration, number, status_styled

MOST = 10
ABSENT = "–"


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.RUNS, compare)


@dataclass(frozen=True, slots=True)
class Compared:
    """A run with what its report says of it."""

    run: Run
    scores: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help=f"one run, to compare it with its plan; or up to {MOST}: ids or names",
            autocompletion=complete.runs,
        ),
    ],
    as_json: Json = False,
) -> None:
    """Compare runs: cost, scores and what differs in their recipes. One run alone is compared with its plan."""
    if len(runs) > MOST:
        raise typer.BadParameter(f"{len(runs)} runs are too many; compare up to {MOST}", param_hint="RUN")
    with connect() as client:
        if len(runs) == 1:
            plan = client.comparison(runs[0])
            emit(plan) if as_json else show(_against_plan(plan))
            return
        found = [_look(client, run) for run in runs]
    changed = _differences([one.settings for one in found])
    scores = list(dict.fromkeys(name for one in found for name in one.scores))
    if as_json:
        emit(
            {
                "runs": [
                    {
                        **one.run.model_dump(mode="json", include={"id", "name", "recipe", "status", "budget"}),
                        "scores": one.scores,
                    }
                    for one in found
                ],
                "settings": {path: [one.settings.get(path) for one in found] for path in changed},
            }
        )
        return
    show(_heads(found))
    _section("Scores", _side_by_side("score", scores, [one.scores for one in found], number))
    _section("Settings that differ", _side_by_side("setting", changed, [one.settings for one in found], json.dumps))


def _differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths of the settings that are not the same in all runs."""
    paths = dict.fromkeys(path for one in settings for path in one)
    missing = object()
    return [path for path in paths if any(one.get(path, missing) != settings[0].get(path, missing) for one in settings)]


def _leaves(value: object, path: str = "") -> Iterable[tuple[str, Any]]:
    """The settings of a recipe by their dotted path. A list is one value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _look(client: Client, wanted: str) -> Compared:
    run = client.run(wanted)
    try:
        report = client.report_data(run.id) or {}
    except ApiError as err:
        if err.status != 404:  # no stage has begun
            raise
        report = {}
    scores = {
        f"{row['name']} {column}": value for row in report.get("summary", ()) for column, value in row.get("values", {}).items()
    }
    return Compared(run, scores, dict(_leaves(run.config)))


def _heads(found: Sequence[Compared]) -> Sheet:
    sheet = Sheet(
        "",
        "id",
        Column("name", wrap=True),
        "status",
        Column("recipe", drop=4),
        Column("took", right=True, drop=2),
        Column("GPU hours", right=True, drop=3),
        Column("$", right=True, drop=1),
    )
    for no, one in enumerate(found, start=1):
        run, used = one.run, one.run.budget
        took = duration(run.started_at, run.finished_at)
        sheet.add(
            str(no),
            run.id,
            run.name,
            status_styled(run.status),
            run.recipe,
            took,
            f"{used.used_gpu_hours:.2f}",
            dollars(used.used_usd),
        )
    return sheet


def _side_by_side(heading: str, rows: Sequence[str], values: Sequence[Mapping[str, Any]], shown: Callable[[Any], str]) -> Sheet:
    sheet = Sheet(heading, *(Column(str(no), right=True) for no in range(1, len(values) + 1)))
    for row in rows:
        sheet.add(row, *(shown(one[row]) if row in one else ABSENT for one in values))
    return sheet


def _section(title: str, sheet: Sheet) -> None:
    say("", title if sheet.rows else f"{title}: none")
    if sheet.rows:
        show(sheet)


def _against_plan(found: Comparison) -> Sheet:
    headings = (
        ("hours planned", 1),
        ("hours", 0),
        ("$ planned", 3),
        ("$", 2),
        ("tok/s planned", 5),
        ("tok/s", 4),
        ("attempts", 6),
    )
    sheet = Sheet(
        "stage", *(Column(heading, right=True, drop=drop) for heading, drop in headings), Column("planned from", drop=7)
    )
    for row in found.stages:
        pairs = ((row.planned_hours, row.hours), (row.planned_usd, row.usd), (row.planned_tok_per_s, row.tok_per_s))
        figures = (number(value) for pair in pairs for value in pair)
        sheet.add(row.stage, *figures, str(row.attempts), row.planned_source or "")
    return sheet
