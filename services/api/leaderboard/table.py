"""The leaderboard as a table: finished runs from the ledger, and published models."""

from __future__ import annotations

from sqlalchemy.orm import Session

from controlplane import leaderboard
from controlplane.leaderboard import LeaderboardRow, LeaderboardView, Order
from nanochat.report import cells
from nanochat.report.card import Published
from nanochat.report.published import PUBLISHED, TIME_TO_GPT2


def table(session: Session, project: str, sort: Order, limit: int, *, references: bool) -> LeaderboardView:
    """The first `limit` runs of the project in this order, and with `references` all published models between them."""
    rows = leaderboard.rows(session, project, sort=sort, limit=limit)
    for row in rows:
        row.params = cells.short(row.params_exact) if row.params_exact else None
    if references:
        rows = leaderboard.ordered([*rows, *map(_reference, (*PUBLISHED, *TIME_TO_GPT2))], sort)
    return LeaderboardView(items=rows)


def _reference(known: Published) -> LeaderboardRow:
    return LeaderboardRow(
        reference=True,
        name=known.name,
        val_bpb=known.bpb,
        core=known.core,
        chatcore=known.chatcore,
        hours=known.hours,
        usd=known.usd,
        params=known.params or None,
        hardware=known.hardware,
        source=known.source,
    )
