"""The state that all requests share, and the check of the API key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from services.inference.engine_thread import EngineThread
from services.inference.errors import ApiError
from services.inference.limits import Limits
from services.inference.metrics import Metrics
from services.inference.registry import Registry


@dataclass(slots=True)
class State:
    registry: Registry
    engines: EngineThread
    metrics: Metrics
    keys: tuple[str, ...]  # empty: anyone on this machine may send requests
    limits: Limits


def current_state(request: Request) -> State:
    state: State = request.app.state.service
    return state


CurrentState = Annotated[State, Depends(current_state)]


def require_key(request: Request, state: CurrentState) -> None:
    """Raises ApiError 401 unless the request has one of the configured keys. The comparison takes constant time."""
    if not state.keys:
        return
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = bearer if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
    known = [secrets.compare_digest(given.encode(), key.encode()) for key in state.keys]
    if not any(known):
        raise ApiError(
            401,
            "Missing or unknown API key. Send it as `Authorization: Bearer <key>` or as `X-Api-Key: <key>`.",
            code="invalid_api_key",
        )
