"""Shared by the control loops: electing one leader, and recording when they tick."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import Any

from sqlalchemy import Interval, case, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from controlplane.db import CONTROL_LOCK
from controlplane.models import Loop
from controlplane.timing import Timing


def leading(session: Session, name: str, timing: Timing) -> bool:
    """Try to lead this loop until the transaction ends, and record the tick. False if another process leads."""
    key = CONTROL_LOCK ^ zlib.crc32(name.encode())
    if not session.scalar(select(func.pg_try_advisory_xact_lock(key))):
        return False
    now = func.clock_timestamp()
    paused = Loop.ticked_at < now - seconds(timing.steady_gap)
    session.execute(
        insert(Loop)
        .values(name=name, ticked_at=now, steady_since=now)
        .on_conflict_do_update(
            index_elements=["name"], set_={"ticked_at": now, "steady_since": case((paused, now), else_=Loop.steady_since)}
        )
    )
    return True


def steady_for(session: Session, name: str) -> float:
    """Seconds since the loop's last gap. While this is less than a lease lasts, an expired lease proves nothing."""
    age = select(func.extract("epoch", func.clock_timestamp() - Loop.steady_since)).where(Loop.name == name)
    return float(session.scalar(age) or 0.0)


def seconds(value: float) -> Any:
    return literal(timedelta(seconds=value), Interval)
