"""What every request can reach, and who may make one."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from fastapi import Request

from services.inference.errors import ApiError
from services.inference.metrics import Metrics
from services.inference.registry import Registry
from services.inference.scheduler import Scheduler


@dataclass(slots=True)
class State:
    registry: Registry
    scheduler: Scheduler
    metrics: Metrics
    keys: tuple[str, ...]  # none: anyone on this machine may ask


def state(request: Request) -> State:
    here: State = request.app.state.here
    return here


def require_key(request: Request) -> None:
    """Raises ApiError 401 unless the bearer key is one of ours; compared in constant time."""
    keys = state(request).keys
    if not keys:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    known = [secrets.compare_digest(given.encode(), key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(known):
        raise ApiError(401, "Missing or unknown API key. Send it as `Authorization: Bearer <key>`.", code="invalid_api_key")
