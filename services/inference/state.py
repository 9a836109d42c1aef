"""The state that all requests share, and what of it depends on the caller."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request

from services.inference.engines.fleet import Fleet
from services.inference.grammars import GrammarTrial
from services.inference.limits import Limits
from services.inference.metrics import Metrics
from services.inference.registry import Registry


@dataclass(slots=True)
class State:
    registry: Registry
    engines: Fleet
    metrics: Metrics
    limits: Limits
    grammars: GrammarTrial
    caller: str = ""  # a hash of the request's API key; requests of one caller share one turn in the engine's queue


async def current_state(request: Request) -> State:
    """A coroutine, because FastAPI calls a plain function on a thread."""
    state: State = request.app.state.service
    return replace(state, caller=request.state.caller)


CurrentState = Annotated[State, Depends(current_state)]
