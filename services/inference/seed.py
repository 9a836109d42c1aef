"""POST /chat/completions: the event stream of nanochat's own web server, so that its page and its scripts work unchanged."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import APIRouter, Response

from services.inference.errors import ApiError
from services.inference.generation import Generation, admit
from services.inference.json_route import JsonRoute
from services.inference.prompts import beside, chat_prompt, kept
from services.inference.schemas.seed import SeedRequest
from services.inference.state import CurrentState
from services.inference.streaming import EVENTS, GenerationStream, event
from services.inference.text import MarkedText

router = APIRouter(route_class=JsonRoute)


@router.post("/chat/completions", response_model=None, responses=EVENTS)
async def complete(body: SeedRequest, state: CurrentState) -> Response:
    """Events `{"token": text, "gpu": number}`, and `{"done": true}` at the end. Calculator spans are part of the text."""
    state.limits.check_messages(body.messages)
    state.limits.check_sampling(body)
    loaded = await state.registry.get(body.model)
    await state.grammars.check(body)
    prompt = await beside(body.chars, chat_prompt, body, loaded.tokenizer, kept(body, loaded.context))
    generation = admit(body, [prompt], loaded, state, text=lambda: MarkedText(loaded.tokenizer))
    return GenerationStream(generation, _events(generation))


async def _events(generation: Generation) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(generation.steps()) as steps:
            async for piece in (piece async for pieces in steps for piece in pieces):
                if piece.delta.text:
                    yield event({"token": piece.delta.text, "gpu": generation.answers[0].request.replica})
    except ApiError as err:
        yield event(err.body())
    yield event({"done": True})
