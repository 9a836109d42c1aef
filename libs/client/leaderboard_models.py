"""The control API's leaderboard. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class LeaderboardRow(BaseModel):
    """A finished run, or a published model (`reference`). None: not known."""

    reference: bool
    name: str
    run_id: str | None = None
    recipe: str | None = None
    labels: list[str] = []
    val_bpb: float | None
    core: float | None
    core_estimate: bool = False  # of a part of its examples
    chatcore: float | None = None
    hours: float | None
    usd: float | None
    tokens: int | None = None
    params: str | None = None  # for people
    params_exact: int | None = None
    hardware: str
    gpu: str | None = None
    gpus: int | None = None
    finished_at: datetime | None = None
    checkpoint_id: str | None = None  # of its final chat model
    promoted: bool = False
    source: str = ""


class Leaderboard(BaseModel):
    items: list[LeaderboardRow]
