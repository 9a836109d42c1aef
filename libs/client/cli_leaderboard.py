"""The command `leaderboard`: finished runs and published models, by a figure."""

from __future__ import annotations

from typing import Annotated

import typer

from client import cli_base
from client.cli_base import Json, connect, emit, show, warn
from client.leaderboard_models import LeaderboardRow
from client.sheet import Column, Sheet
from client.text import dollars, known


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.RUNS, leaderboard)


def leaderboard(
    sort: Annotated[
        str, typer.Option(help="figure to sort by: core, val_bpb, chatcore, hours or usd; a minus in front: the greatest first")
    ] = "-core",
    limit: Annotated[int, typer.Option(min=1, max=500, help="how many rows")] = 100,
    own: Annotated[bool, typer.Option("--own", help="leave out published models")] = False,
    as_json: Json = False,
) -> None:
    """Rank finished runs beside published models."""
    with connect() as client:
        found = client.leaderboard(sort, limit, references=not own)
    if as_json:
        emit(found)
        return
    if not found.items:
        warn("No run has finished yet.")
        return
    figures = (("CORE", 0), ("bits/byte", 1), ("ChatCORE", 2), ("hours", 3), ("$", 4))
    sheet = Sheet(
        Column("", right=True),
        Column("run", drop=5),
        Column("name", wrap=True),
        *(Column(heading, right=True, drop=drop) for heading, drop in figures),
        Column("parameters", drop=6),
        Column("hardware", drop=7, wrap=True),
    )
    for place, row in enumerate(found.items, start=1):
        sheet.add(str(place), row.run_id or "published", row.name, *_figures(row), row.params or "", row.hardware)
    show(sheet)


def _figures(row: LeaderboardRow) -> list[str]:
    core = "" if row.core is None else f"{'~' if row.core_estimate else ''}{row.core:.4f}"
    shown = [known(value) for value in (row.val_bpb, row.chatcore, row.hours)]
    usd = "" if row.usd is None and row.run_id is None else dollars(row.usd)
    return [core, *shown, usd]
