"""Parameters of OpenAI's API that this server refuses by name, and parameters that it accepts although they have no effect."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from services.inference.schemas.body import Body, unsupported

# Parameter -> the values that ask for nothing and are therefore accepted.
Neutral = dict[str, tuple[Any, ...]]

CHAT: Neutral = {
    "audio": (None,),
    "function_call": (None, "none"),
    "functions": (None, []),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "reasoning_effort": (None, "none"),
    "verbosity": (None,),
    "web_search_options": (None,),
}
COMPLETION: Neutral = {
    "best_of": (None, 1),
    "suffix": (None, ""),
}


def without_unsupported(body: Any, refused: Neutral) -> Any:
    """The body without the parameters in `refused`. Raises an error for the first one that asks for something."""
    if not isinstance(body, dict):
        return body
    for param, neutral in refused.items():
        # The type counts too: 1 == True.
        if param in body and not any(body[param] == value and type(body[param]) is type(value) for value in neutral):
            raise unsupported(param, f"This server does not implement '{param}'; leave it out.")
    return {name: value for name, value in body.items() if name not in refused}


Ignored = Annotated[Any, Field(default=None, description="accepted; no effect on the answer")]


class NoEffect(Body):
    """Fields that clients send for OpenAI's own service. They are accepted so that these clients work unchanged."""

    user: Ignored
    metadata: Ignored
    store: Ignored
    service_tier: Ignored
    safety_identifier: Ignored
    prompt_cache_key: Ignored
    prompt_cache_retention: Ignored
