"""The leaderboard of finished runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from controlplane.leaderboard import LeaderboardView, Order
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.leaderboard.table import table
from services.api.problems import responses

router = APIRouter(prefix="/v1/leaderboard", tags=["leaderboard"])


@router.get("", responses=responses("invalid-request"))
def get_leaderboard(
    caller: Caller,
    ledger: Ledger,
    sort: Annotated[Order, Query(description="Order of the rows; a minus means descending.")] = Order.CORE_DESCENDING,
    limit: Annotated[int, Query(ge=1, le=500, description="Maximum number of runs, the first in this order.")] = 100,
    references: Annotated[bool, Query(description="Whether published models stand among the runs.")] = True,
) -> LeaderboardView:
    """List finished runs by bits per byte, CORE, ChatCORE, time or dollars, with published models beside them."""
    with ledger() as session:
        return table(session, caller.project, sort, limit, references=references)
